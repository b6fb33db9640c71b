/** The object that is being drawn: its prompts, live requests, undo and redo, saving and loading. */

import { automaticParams, makePrompt, requestParams } from './prompts.js';
import * as server from './server.js';
import { Change, drawMask, readNifti, readNrrd, writeNrrd } from './voxels.js';

const MODELS = { false: 'biosam2_point', true: 'biosam2_propagate' };
const AUTOMATIC = 'biosam2_auto';
const HISTORY = 50; // steps that can be undone

/**
 * State of the annotation. `changed` is called after every change of it, `busy` with the work in progress.
 *
 * An entry of the history is {before, after, change}: the object's state before and after a step, and what the
 * step changed in the overlay.
 */
export class Annotator {
  constructor(viewer, { changed, failed }) {
    Object.assign(this, { viewer, changed, failed });
    this.live = true;
    this.volume = false;
    this.positive = true;
    this.running = null;
    this.reset();
    viewer.onDrawn = (drawn) => this._add(drawn);
  }

  /** Forgets everything about the series that was shown before. */
  reset() {
    this._stop();
    this.undone = [];
    this.done = [];
    this.unsure = [];
    this.loaded = ''; // version of the label that the overlay started from
    this.dirty = false;
    this.object = { segment: null, refine: false, prompts: [], drawn: new Change() };
  }

  /** Starts the next object. With `refine` it corrects what the active segment has. */
  start(refine = false, segment = this.viewer.activeSegment) {
    this._stop();
    this.viewer.showOnly([]);
    if (segment !== this.viewer.activeSegment) this.viewer.activeSegment = segment;
    this.object = { segment, refine, prompts: [], drawn: new Change() };
    this.changed();
  }

  /** Asks the server for the object's mask and draws it. */
  async run() {
    const { object } = this;
    if (object.prompts.length) {
      await this._answer((signal) => this._infer(object, signal), (voxels) => this._draw(object, voxels));
    }
  }

  /** Asks for every label without a prompt, and draws them where nothing is; the next prompts correct them. */
  async segmentAll() {
    const infer = (signal) => server.infer(AUTOMATIC, this.viewer.series, automaticParams(), null, signal);
    await this._answer(infer, (voxels, { label_names: values }) => {
      this.start(true);
      const names = Object.entries(values).map(([name, idx]) => ({ name, idx }));
      this._replace((before) => this._renumbered(voxels, names).map((value, n) => before[n] || value));
      this.dirty = true;
    });
  }

  /** Draws the answer to a request. The last request wins. */
  async _answer(infer, draw) {
    this._stop();
    const running = new AbortController();
    this.running = running;
    this.changed();
    try {
      const { params, file } = await infer(running.signal);
      const { voxels } = await readNrrd(file);
      if (this.running !== running) return;
      if (voxels.length !== this.viewer.readOverlay().length) {
        throw new Error('The answer has another size than the displayed series.');
      }
      this.running = null;
      draw(voxels, params);
      this.unsure = Object.values(params.slices_to_check ?? {}).flat();
    } catch (error) {
      if (error.name !== 'AbortError') this.failed(error);
    } finally {
      if (this.running === running) this.running = null;
      this.changed();
    }
  }

  undo() {
    this._step(this.done, this.undone, 'before', (change, voxels) => change.revert(voxels));
  }

  redo() {
    this._step(this.undone, this.done, 'after', (change, voxels) => change.apply(voxels));
  }

  /** Saves all segments of the overlay as the final label; `ask` decides about a newer one in the store. */
  async save(ask) {
    const { series, grid, segments } = this.viewer;
    const voxels = this.viewer.readOverlay();
    const names = segments.map(({ label, index, colour }) => ({ name: label, idx: index, color: colour?.slice(0, 3) }));
    try {
      await server.saveLabel(series, voxels, names, grid, this.loaded);
    } catch (error) {
      if (error.status !== 409 || !(await ask(error.message))) throw error;
      await server.saveLabel(series, voxels, names, grid);
    }
    this.loaded = server.labelVersion(await server.labelInfo(series));
    this.dirty = false;
    this.changed();
  }

  /** What the store has of the series, or null. */
  stored() {
    return server.labelInfo(this.viewer.series);
  }

  /** Makes the stored label the overlay; one undo brings the overlay back. */
  async load() {
    const { series } = this.viewer;
    const info = await server.labelInfo(series);
    if (!info) throw new Error('The store has no final label of this series.');
    const { dimensions, voxels } = await readNifti(await server.labelFile(series));
    const expected = this.viewer.grid.dimensions;
    if (dimensions.join() !== expected.join()) {
      throw new Error(`The label has ${dimensions.join(' x ')} voxels, the series ${expected.join(' x ')}.`);
    }
    this.start();
    this._replace(() => this._renumbered(voxels, info.label_info ?? []));
    this.loaded = server.labelVersion(info);
    this.dirty = false;
    this.changed();
  }

  _add(drawn) {
    try {
      const used = this.object.prompts.map(({ stack }) => stack).reverse();
      const last = this.object.prompts.at(-1);
      const prompt = makePrompt(drawn, this.positive, this.viewer.grid, used, last);
      if (last && this.volume && prompt.stack.key !== last.stack.key) {
        throw new Error('Through a volume all prompts of an object lie along one view: draw in the view as before, or press N.');
      }
      if (this.object.segment !== this.viewer.activeSegment) this.start(this.object.refine);
      this.viewer.style(drawn.uid, this.positive);
      this._record(() => {
        this.object = { ...this.object, prompts: [...this.object.prompts, prompt] };
        return new Change();
      });
    } catch (error) {
      this.viewer.showOnly(this.object.prompts.map((prompt) => prompt.uid));
      this.failed(error);
      return;
    }
    if (this.live) this.run();
    this.changed();
  }

  async _infer(object, signal) {
    const params = requestParams(object.prompts, this.volume);
    const label = this.viewer.segments.find((segment) => segment.index === object.segment)?.label;
    if (label) params.label = label;
    const start = object.refine && !object.drawn.numbers.length ? await this._start(object) : null;
    if (start && label) params.label_info = [{ name: label, idx: 1 }]; // else the server takes it for another label's
    return server.infer(MODELS[this.volume], this.viewer.series, params, start, signal);
  }

  /** The segment's mask as a file for the server to start from; null where nothing is drawn. */
  async _start({ segment }) {
    const mask = this.viewer.readOverlay().map((value) => Number(value === segment));
    return mask.includes(1) ? writeNrrd(mask, this.viewer.grid) : null;
  }

  _draw(object, mask) {
    const voxels = this.viewer.readOverlay();
    // The object's earlier answer on this slice gives way to the new one; on other slices it stays.
    const base = voxels.slice();
    object.drawn.revert(base);
    const { stack, slice } = object.prompts.at(-1);
    const inside = this.volume ? null : stack.holds(slice, this.viewer.grid.dimensions);
    const { step, drawn } = drawMask(voxels, base, mask, object.segment, inside, object.refine);
    this.viewer.writeOverlay(voxels);
    const entry = this.done.at(-1);
    this.object = { ...object, drawn };
    if (entry) {
      entry.change = joined(entry.change, step);
      entry.after = this.object;
    }
    this.dirty = true;
  }

  _record(action) {
    const before = this.object;
    const change = action();
    this.done.push({ before, after: this.object, change });
    if (this.done.length > HISTORY) this.done.shift();
    this.undone = [];
  }

  /** Replaces the overlay, as a step that can be undone. */
  _replace(makeOverlay) {
    this._record(() => {
      const before = this.viewer.readOverlay();
      const after = makeOverlay(before);
      this.viewer.writeOverlay(after);
      return Change.between(before, after);
    });
  }

  _step(from, to, side, move) {
    const entry = from.pop();
    if (!entry) return;
    this._stop();
    const voxels = this.viewer.readOverlay();
    move(entry.change, voxels);
    this.viewer.writeOverlay(voxels);
    this.object = entry[side];
    this.viewer.showOnly(this.object.prompts.map((prompt) => prompt.uid));
    to.push(entry);
    this.dirty = true;
    this.changed();
  }

  _stop() {
    this.running?.abort();
    this.running = null;
  }

  /** Voxels of a stored label with the overlay's segment numbers; segments that are missing are added. */
  _renumbered(voxels, names) {
    const table = Array.from({ length: 256 }, (_, value) => value);
    for (const { name, idx } of names) {
      const known = this.viewer.segments.find((segment) => segment.label === name);
      table[idx] = known ? known.index : this.viewer.addSegment(name);
    }
    return voxels.map((value) => table[value]);
  }
}

/** Two changes, one after the other, as one. */
function joined(first, second) {
  const values = new Map();
  for (const { numbers, before, after } of [first, second]) {
    numbers.forEach((number, n) => values.set(number, [values.get(number)?.[0] ?? before[n], after[n]]));
  }
  const change = new Change();
  for (const [number, [before, after]] of values) if (before !== after) change.add(number, before, after);
  return change;
}
