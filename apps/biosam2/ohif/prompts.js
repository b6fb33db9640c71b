/** Prompts of one object, and the request that they make. */

import { Stack, stackOf } from './stacks.js';

/** What every request says of the answer. */
export const OPTIONS = { result_extension: '.nii.gz', result_dtype: 'uint8', restore_label_idx: false };
const SAME = 0.5; // planes; a click this close to a prompt's plane is on it

/**
 * One drawn prompt: {kind, uid, points [[x, y, z]], positive, stack, slice}, its points and slice as the stack
 * counts them.
 *
 * @param prompts The object's prompts so far.
 */
export function makePrompt(drawn, positive, grid, prompts) {
  const last = prompts.at(-1);
  const used = prompts.map(({ stack }) => stack).reverse();
  const stack = drawn.kind === 'point' ? (last?.stack ?? Stack.across(grid, 2)) : stackOf(drawn, grid, used);
  const { axis, size } = stack;
  const inside = (value, side) => Math.min(Math.max(value, 0), size[side] - 1);
  const points = drawn.points.map((point) => stack.place(point).map(inside));
  // In a view also between two planes, since the answer is about what is displayed.
  let slice = stack.isNative ? Math.round(points[0][axis]) : points[0][axis];
  if (last?.stack === stack && Math.abs(last.slice - slice) < SAME) slice = last.slice;
  return { ...drawn, points, positive, stack, slice };
}

/** In-plane coordinates [x, y] of a place in a stack. */
const inPlane = (point, axis) => point.filter((_, side) => side !== axis);

/** First and last pixel [x, y] of a box. */
function ends({ points, stack }) {
  const corners = points.map((point) => inPlane(point, stack.axis).map(Math.round));
  return [Math.min, Math.max].map((end) => [0, 1].map((side) => end(...corners.map((corner) => corner[side]))));
}

/**
 * The `params` of an inference request.
 *
 * @param prompts Prompts of one object, for a volume all of one stack.
 * @param volume Whether the whole volume is asked for.
 */
export function requestParams(prompts, volume) {
  const last = prompts.at(-1);
  const { stack } = last;
  // A 2-D task answers for one slice: prompts of other slices belong to other answers.
  const used = volume ? prompts : prompts.filter((prompt) => prompt.slice === last.slice && prompt.stack === stack);
  const of = (kind, positive) => used.filter((p) => p.kind === kind && (positive === undefined || p.positive === positive));
  // A request about one plane of a view has no other plane of it.
  const slice = (prompt) => (volume || stack.isNative ? Math.round(prompt.slice) : 0);
  const point = (prompt) => prompt.points[0].map((value, side) => (side === stack.axis ? slice(prompt) : Math.round(value)));
  const box = (prompt) => {
    const [low, high] = ends(prompt);
    return [...low, ...high.map((value) => value + 1), slice(prompt)];
  };
  // The server takes a negative box as an outline: none of its pixels belongs to the object.
  const outline = (prompt) => {
    const [[left, top], [right, bottom]] = ends(prompt);
    return { slice: slice(prompt), positive: false, points: [[left, top], [right, top], [right, bottom], [left, bottom]] };
  };
  const stroke = (prompt) => {
    const points = prompt.points.map((place) => inPlane(place, stack.axis).map((value) => Math.round(value * 10) / 10));
    return { slice: slice(prompt), positive: prompt.positive, points };
  };
  return {
    foreground: of('point', true).map(point),
    background: of('point', false).map(point),
    boxes: of('box', true).map(box),
    scribbles: of('scribble').map(stroke),
    lassos: [...of('lasso').map(stroke), ...of('box', false).map(outline)],
    axis: stack.axis,
    slice: volume ? undefined : slice(last),
    ...stack.params(volume ? undefined : last.slice),
    ...OPTIONS,
  };
}
