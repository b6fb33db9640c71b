/** The object that is being drawn: its prompts, live requests, undo and redo, saving and loading. */

import { OPTIONS, makePrompt, requestParams } from './prompts.js';
import * as server from './server.js';
import { Change, readNifti, readNrrd, withMask, writeNrrd } from './voxels.js';

const MODELS = { false: 'biosam2_point', true: 'biosam2_propagate' };
const AUTOMATIC = 'biosam2_auto';
const HISTORY = 50; // steps that can be undone

/**
 * State of the annotation. `changed` is called after every change of it, `failed` with an error.
 *
 * An entry of the history is {before, after, change}: the object's state before and after a step, and what the
 * step changed in the overlay.
 */
export class Annotator {
  constructor(viewer, { changed, failed }) {
    Object.assign(this, { viewer, changed, failed });
    this.live = true;
    this.volume = false;
    this.negative = false;
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

  /** Starts the next object. With `refine` it corrects what the segment has. */
  start(refine = false, segment = this.viewer.activeSegment) {
    this._stop();
    this.object = { segment, refine, prompts: [], drawn: new Change() };
    this.viewer.activeSegment = segment;
    this._showPrompts();
    this.changed();
  }

  /** Takes up a segment: goes on with what it has. */
  take(segment) {
    this.start(this.viewer.readOverlay().includes(segment), segment);
  }

  /** Takes up the segment that was chosen in OHIF's own list. */
  follow() {
    const { activeSegment } = this.viewer;
    if (this.object.segment !== activeSegment) this.take(activeSegment);
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
    const infer = (signal) => server.infer(AUTOMATIC, this.viewer.series, OPTIONS, null, signal);
    await this._answer(infer, (voxels, { label_names: values }) => {
      this.start(true);
      const names = Object.entries(values).map(([name, idx]) => ({ name, idx }));
      this._replace((before) => this._renumbered(voxels, names).map((value, n) => before[n] || value));
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
      const voxels = await readNrrd(file);
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
    const send = (replaces) => server.saveLabel(series, voxels, names, grid, replaces);
    try {
      this.loaded = await send(this.loaded);
    } catch (error) {
      if (error.status !== 409 || !(await ask(error.message))) throw error;
      this.loaded = await send();
    }
    this.dirty = false;
    this.changed();
  }

  /** Makes the stored label the overlay; one undo brings the overlay back. */
  async load() {
    const { series } = this.viewer;
    const info = await server.labelInfo(series);
    if (!info) throw new Error('The store has no label of this series.');
    const { dimensions, voxels } = await readNifti(await server.labelFile(series, info.tag));
    const expected = this.viewer.grid.dimensions;
    if (dimensions.join() !== expected.join()) {
      throw new Error(`The label has ${dimensions.join(' x ')} voxels, the series ${expected.join(' x ')}.`);
    }
    if (this.viewer.series !== series) return;
    this.start(true);
    this._replace(() => this._renumbered(voxels, info.label_info ?? []));
    this.loaded = info.tag === server.FINAL ? info.version : '';
    this.dirty = false;
    this.changed();
  }

  _add(drawn) {
    try {
      this.follow();
      const { prompts } = this.object;
      const prompt = makePrompt(drawn, !this.negative, this.viewer.grid, prompts);
      if (this.volume && prompts.length && prompt.stack !== prompts.at(-1).stack) {
        throw new Error('Through a volume all prompts of an object lie along one view: draw in the view as before, or press N.');
      }
      this.viewer.style(drawn.uid, prompt.positive);
      const before = this.object;
      this.object = { ...before, prompts: [...prompts, prompt] };
      this._record(before, new Change());
      if (this.live) this.run();
    } catch (error) {
      this._showPrompts();
      this.failed(error);
    }
    this.changed();
  }

  async _infer(object, signal) {
    const label = this.viewer.segments.find(({ index }) => index === object.segment)?.label;
    const params = { ...requestParams(object.prompts, this.volume), label };
    const start = object.refine && !object.drawn.numbers.length ? await this._start(object) : null;
    if (start) params.label_info = [{ name: label, idx: 1 }]; // else the server takes it for another label's
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
    const after = withMask(voxels, base, mask, object.segment, inside, object.refine);
    this.viewer.writeOverlay(after);
    this.object = { ...object, drawn: new Change(base, after) };
    this.dirty = true;
    const entry = this.done.at(-1);
    if (!entry) return;
    entry.change.revert(voxels);
    Object.assign(entry, { change: new Change(voxels, after), after: this.object });
  }

  /** Keeps a step from the object's state `before` to the present one. */
  _record(before, change) {
    this.done.push({ before, after: this.object, change });
    if (this.done.length > HISTORY) this.done.shift();
    this.undone = [];
  }

  /** Replaces the overlay, as a step that can be undone. */
  _replace(makeOverlay) {
    const before = this.viewer.readOverlay();
    const after = makeOverlay(before);
    this.viewer.writeOverlay(after);
    this._record(this.object, new Change(before, after));
    this.dirty = true;
  }

  _step(from, to, side, move) {
    const entry = from.pop();
    if (!entry) return;
    this._stop();
    const voxels = this.viewer.readOverlay();
    move(entry.change, voxels);
    this.viewer.writeOverlay(voxels);
    this.object = entry[side];
    this.viewer.activeSegment = this.object.segment;
    this._showPrompts();
    to.push(entry);
    this.dirty = true;
    this.changed();
  }

  _showPrompts() {
    this.viewer.showOnly(this.object.prompts.map((prompt) => prompt.uid));
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
