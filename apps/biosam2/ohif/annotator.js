/** The object that is being drawn: its prompts, live requests, undo and redo, saving and loading. */

import { OPTIONS, makePrompt, requestParams } from './prompts.js';
import * as server from './server.js';
import { Stack } from './stacks.js';
import { Change, readNifti, withMask, writeNrrd } from './voxels.js';

const MODELS = { false: 'biosam2_point', true: 'biosam2_propagate' };
const AUTOMATIC = 'biosam2_auto';
const HISTORY = 50; // steps that can be undone

/** An object without a prompt; with `refine` its prompts correct what the segment has. */
const newObject = (segment, refine) => ({ segment, refine, prompts: [], drawn: new Change() });

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
    this.reset();
    viewer.onDrawn = (drawn) => this._add(drawn);
  }

  /** Forgets everything about the series that was shown before. */
  reset() {
    this._stop();
    this.undone = [];
    this.done = [];
    this.unsure = []; // slices to check: {slice, voxel}
    this.stored = { version: '', changes: 0 }; // label in the store that the overlay was, and changes since then
    this.object = newObject(null, false);
  }

  /** Starts the next object. With `refine` it corrects what the segment has. */
  start(refine = false, segment = this.viewer.activeSegment) {
    this._stop();
    this.object = newObject(segment, refine);
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
    } else {
      this.failed(new Error('There is no prompt to run: draw one first.'));
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

  /** Draws the answer to a request. A later request cancels it, and so does another series. */
  async _answer(infer, draw) {
    this._stop();
    const { series } = this.viewer;
    const running = new AbortController();
    this.running = running;
    this.changed();
    try {
      const { params, file } = await infer(running.signal);
      const voxels = await this._read(file);
      if (this.running !== running || this.viewer.series !== series) return;
      this.running = null;
      draw(voxels, params);
      const stack = this.object.prompts.at(-1)?.stack ?? Stack.across(this.viewer.grid, 2);
      const slices = Object.values(params.slices_to_check ?? {}).flat();
      this.unsure = slices.map((slice) => ({ slice, voxel: stack.middle(slice) }));
    } catch (error) {
      if (!running.signal.aborted) this.failed(error);
    } finally {
      if (this.running === running) this.running = null;
      this.changed();
    }
  }

  undo() {
    this._step(this.done, this.undone, 'before');
  }

  redo() {
    this._step(this.undone, this.done, 'after');
  }

  /** Saves all segments of the overlay as the final label; `ask` decides about a newer one in the store. */
  async save(ask) {
    const { series, grid, segments } = this.viewer;
    const { stored } = this;
    const { changes } = stored;
    const voxels = this.viewer.readOverlay();
    const send = (replaces) => server.saveLabel(series, voxels, segments, grid, replaces);
    stored.version = await send(stored.version).catch((error) => {
      if (error.status !== 409 || !ask(error.message)) throw error;
      return send();
    });
    stored.changes -= changes; // others can have come while the label was on its way
    this.changed();
  }

  /** Makes the stored label the overlay; one undo brings the overlay back. */
  async load() {
    const { series } = this.viewer;
    const info = await server.labelInfo(series);
    if (!info) throw new Error('The store has no label of this series.');
    const voxels = await this._read(await server.labelFile(series, info.tag));
    if (this.viewer.series !== series) return;
    this.start(true);
    this._replace(() => this._renumbered(voxels, info.label_info ?? []));
    this.stored = { version: info.tag === server.FINAL ? info.version : '', changes: 0 };
    this.changed();
  }

  /** Voxels of a file of the server, which has to have the size of the series. */
  async _read(file) {
    const expected = this.viewer.grid.dimensions.join(' x ');
    const { dimensions, voxels } = await readNifti(file);
    const found = dimensions.join(' x ');
    if (found !== expected) throw new Error(`The label has ${found} voxels, the series ${expected}.`);
    return voxels;
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
    const { viewer, volume } = this;
    const label = viewer.segments.find(({ idx }) => idx === object.segment)?.name;
    const params = { ...requestParams(object.prompts, volume), label };
    object.start ??= this._start(object);
    const start = await object.start;
    if (start) params.label_info = [{ name: label, idx: 1 }]; // else the server takes it for another label's
    return server.infer(MODELS[volume], viewer.series, params, start, signal);
  }

  /** What all prompts of an object correct, as a file: the segment's mask before them; null for none. */
  async _start({ segment, refine }) {
    const mask = this.viewer.readOverlay().map((value) => Number(value === segment));
    return refine && mask.includes(1) ? writeNrrd(mask, this.viewer.grid) : null;
  }

  _draw(object, mask) {
    const voxels = this.viewer.readOverlay();
    // The object's earlier answer on this slice gives way to the new one; on other slices it stays.
    const base = voxels.slice();
    object.drawn.put('before', base);
    const { stack, slice } = object.prompts.at(-1);
    const inside = this.volume ? null : stack.holds(slice, this.viewer.grid.dimensions);
    const after = withMask(voxels, base, mask, object.segment, inside, object.refine);
    this._write(after);
    this.object = { ...object, drawn: new Change(base, after) };
    const entry = this.done.at(-1);
    if (!entry) return; // all steps that are kept were undone
    entry.change.put('before', voxels);
    Object.assign(entry, { change: new Change(voxels, after), after: this.object });
  }

  /** Keeps a step from the object's state `before` to the present one. */
  _record(before, change) {
    this.done = [...this.done, { before, after: this.object, change }].slice(-HISTORY);
    this.undone = [];
  }

  /** Replaces the overlay, as a step that can be undone. */
  _replace(makeOverlay) {
    const before = this.viewer.readOverlay();
    const after = makeOverlay(before);
    this._write(after);
    this._record(this.object, new Change(before, after));
  }

  _write(voxels) {
    this.viewer.writeOverlay(voxels);
    this.stored.changes += 1;
  }

  _step(from, to, side) {
    const entry = from.pop();
    if (!entry) return;
    this._stop();
    const voxels = this.viewer.readOverlay();
    entry.change.put(side, voxels);
    this._write(voxels);
    this.object = entry[side];
    this.viewer.activeSegment = this.object.segment;
    this._showPrompts();
    to.push(entry);
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
      const known = this.viewer.segments.find((segment) => segment.name === name);
      table[idx] = known?.idx ?? this.viewer.addSegment(name);
    }
    return voxels.map((value) => table[value]);
  }
}
