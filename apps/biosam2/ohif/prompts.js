/** Prompts of one object, and the request that they make. */

const FLAT = 0.6; // voxels; points of one slice differ less along its axis, also after rounding on the screen
const OPTIONS = { result_extension: '.nrrd', result_dtype: 'uint8', result_compress: true, restore_label_idx: false };

/** Axis (0, 1, 2) along which all points lie in one slice; null for a plane across the grid. */
function sliceAxis(points, preferred) {
  const flat = [0, 1, 2].filter((axis) => {
    const values = points.map((point) => point[axis]);
    return Math.max(...values) - Math.min(...values) < FLAT;
  });
  return flat.includes(preferred) ? preferred : (flat[0] ?? null);
}

/** One drawn prompt: {kind, uid, points [[i, j, k]], positive, axis, slice}. */
export function makePrompt(drawn, positive, dimensions, preferred = 2) {
  const axis = drawn.kind === 'point' ? preferred : sliceAxis(drawn.points, preferred);
  if (axis === null) throw new Error('Draw on a slice of the series: this view cuts through its slices.');
  const inside = (value, side) => Math.min(Math.max(value, 0), dimensions[side] - 1);
  const points = drawn.points.map((point) => point.map(inside));
  return { ...drawn, points, positive, axis, slice: Math.round(points[0][axis]) };
}

/** In-plane coordinates [x, y] of a voxel on a slice across an axis. */
const inPlane = (point, axis) => point.filter((_, side) => side !== axis);

/** First and last pixel [x, y] of a box. */
function ends({ points, axis }) {
  const corners = points.map((point) => inPlane(point, axis).map(Math.round));
  return [Math.min, Math.max].map((end) => [0, 1].map((side) => end(...corners.map((corner) => corner[side]))));
}

function box(prompt) {
  const [low, high] = ends(prompt);
  return [...low, ...high.map((value) => value + 1), prompt.slice];
}

/** A negative box, which the server takes as an outline: none of its pixels belongs to the object. */
function outline(prompt) {
  const [[left, top], [right, bottom]] = ends(prompt);
  return { slice: prompt.slice, positive: false, points: [[left, top], [right, top], [right, bottom], [left, bottom]] };
}

function stroke({ points, axis, slice, positive }) {
  return { slice, positive, points: points.map((point) => inPlane(point, axis).map((value) => Math.round(value * 10) / 10)) };
}

/**
 * The `params` of an inference request.
 *
 * @param prompts Prompts of one object, all across one axis.
 * @param volume Whether the whole volume is asked for.
 */
export function requestParams(prompts, volume) {
  const last = prompts[prompts.length - 1];
  // A 2-D task answers for one slice: prompts of other slices belong to other answers.
  const used = volume ? prompts : prompts.filter((prompt) => prompt.slice === last.slice && prompt.axis === last.axis);
  const of = (kind, positive) => used.filter((p) => p.kind === kind && (positive === undefined || p.positive === positive));
  const point = (prompt) => prompt.points[0].map(Math.round);
  const params = {
    foreground: of('point', true).map(point),
    background: of('point', false).map(point),
    axis: last.axis,
    ...OPTIONS,
  };
  if (!volume) params.slice = last.slice;
  if (of('box', true).length) params.boxes = of('box', true).map(box);
  if (of('scribble').length) params.scribbles = of('scribble').map(stroke);
  const lassos = [...of('lasso').map(stroke), ...of('box', false).map(outline)];
  if (lassos.length) params.lassos = lassos;
  return params;
}
