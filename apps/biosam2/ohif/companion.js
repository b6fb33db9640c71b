/** Entry: waits for MONAI Label's mode of OHIF and adds the toolbar to its panel. */

import { Annotator } from './annotator.js';
import { REPORT, labelInfo, nextSample, reason, startTraining, stopTraining, training } from './server.js';
import { Stack } from './stacks.js';
import { SWITCHES, TOOLS, Toolbar } from './toolbar.js';
import { Viewer, missingParts, panel } from './viewer.js';

const POLL_MS = 400;
const TRAINING_POLL_MS = 2000;
const IDLE_POLL_MS = 15_000;
// Without OHIF's own question whether a training runs: 404 means no.
const OHIF_REQUESTS = /\/(infer|activelearning|train)\/(?!.*check_if_running)/;
const SLICE_KEY = 'biosam2-slice';

class Companion {
  constructor(viewer) {
    this.viewer = viewer;
    this.annotator = new Annotator(viewer, { changed: () => this.show(), failed: (error) => this.fail(error) });
    this.toolbar = new Toolbar(this.actions());
    viewer.onFailedRequest(OHIF_REQUESTS, (status, text) => viewer.notify('error', reason(status, text)));
    this.watchTraining();
  }

  actions() {
    const { annotator, viewer } = this;
    const tool = (name) => () => {
      viewer.use(viewer.tool === name ? null : name);
      this.show();
    };
    const flip = (name) => () => {
      annotator[name] = !annotator[name];
      this.show();
    };
    const guarded = (work) => {
      let running = null; // pressed again, it is not done twice
      return () => (running ??= work().catch((error) => this.fail(error)).finally(() => (running = null)));
    };
    return {
      ...Object.fromEntries(TOOLS.map((name) => [name, tool(name)])),
      ...Object.fromEntries(SWITCHES.map((name) => [name, flip(name)])),
      run: () => annotator.run(),
      refine: () => annotator.start(!annotator.object.refine),
      next: () => annotator.start(),
      auto: () => annotator.segmentAll(),
      segment: (index) => annotator.take(index),
      addSegment: (label) => annotator.start(false, viewer.addSegment(label)),
      undo: () => annotator.undo(),
      redo: () => annotator.redo(),
      save: guarded(() => this.save()),
      load: guarded(() => this.load()),
      sample: guarded(() => this.next()),
      train: guarded(() => this.train()),
      jump: (voxel) => viewer.jump(voxel),
    };
  }

  show() {
    if (panel()) this.toolbar.show(this.viewer, this.annotator);
  }

  fail(error) {
    if (error.status === undefined) console.error(error); // not an answer of the server
    this.viewer.notify('error', error.message);
    this.show();
  }

  /** Called once for each series that is opened. */
  async opened() {
    this.annotator.reset();
    this.toolbar.offer('');
    this.viewer.use(this.viewer.tool);
    this.show();
    const slice = sessionStorage.getItem(SLICE_KEY);
    sessionStorage.removeItem(SLICE_KEY);
    const { grid, series } = this.viewer;
    if (slice !== null) this.viewer.jump(Stack.across(grid, 2).middle(Number(slice)));
    const stored = await labelInfo(series);
    if (!stored || this.viewer.series !== series) return;
    const who = stored.client_id || stored.user;
    const what = stored.automatic ? "a model's label" : 'a label';
    this.toolbar.offer(`The store has ${what} of this series${who ? ` by ${who}` : ''}.`);
  }

  async save() {
    await this.annotator.save((message) => window.confirm(`${message}\n\nSave yours as well? Both stay in the store.`));
    this.toolbar.offer('');
    this.viewer.notify('success', 'The label is saved.');
  }

  async load() {
    await this.annotator.load();
    this.toolbar.offer('');
  }

  async next() {
    const sample = await nextSample();
    if (!sample.StudyInstanceUID) {
      this.viewer.notify('info', 'Every image has a label.');
      return;
    }
    const { why, slice } = sample;
    const question = [
      `Open ${sample.PatientID ?? sample.id}?`,
      why && `Why this one: ${why}`,
      Number.isInteger(slice) && `It opens on slice ${slice + 1}.`,
      this.annotator.stored.changes && 'The label of this series is not saved.',
    ];
    if (!window.confirm(question.filter(Boolean).join('\n\n'))) return;
    if (Number.isInteger(slice)) sessionStorage.setItem(SLICE_KEY, slice);
    const study = new URLSearchParams({ StudyInstanceUIDs: sample.StudyInstanceUID });
    window.location.assign(`${window.PUBLIC_URL}monai-label?${study}`);
  }

  async train() {
    await (isRunning(await training()) ? stopTraining() : startTraining());
    this.watchTraining();
  }

  /** Shows the progress of a training, whoever started it. */
  async watchTraining() {
    clearTimeout(this.timer);
    let running = false;
    try {
      const last = await training();
      running = isRunning(last);
      this.toolbar.showTraining(progress(last), running, last.stats?.after ? REPORT : '');
    } catch (error) {
      this.toolbar.showTraining(error.message, false, '');
    }
    this.timer = setTimeout(() => this.watchTraining(), running ? TRAINING_POLL_MS : IDLE_POLL_MS);
  }
}

const isRunning = ({ status }) => status === 'RUNNING' || status === 'SUBMITTED';

/** One line about a training. */
function progress(last) {
  const { epoch, total_epochs: total, before, eval: now, after, published, reason: why } = last.stats ?? {};
  const shown = (measured) => measured?.dice?.toFixed(2) ?? '?';
  if (isRunning(last) && !total) return 'Training starts ...';
  if (isRunning(last)) return `Training: epoch ${epoch ?? 0} of ${total}, Dice ${shown(now)} (before: ${shown(before)})`;
  if (last.status === 'ERROR') return `Training failed: ${last.details?.at(-1) ?? 'the log of the server says why'}`;
  if (!after) return '';
  const dice = `Dice ${shown(before)} before, ${shown(after)} after.`;
  return `Training: ${dice} ${published ? 'The new version is served.' : (why ?? 'Not served.')}`;
}

/** Follows OHIF: adds the toolbar whenever MONAI Label's panel is connected to a series. */
async function main() {
  let companion = null;
  let series = null;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
    if (!panel()) {
      companion?.annotator.reset();
      series = null;
      continue;
    }
    const missing = missingParts();
    if (missing.length) {
      console.warn(`The BioSAM-2 toolbar is off: this build of OHIF has no ${missing.join(', ')}.`);
      return;
    }
    companion ??= new Companion(new Viewer());
    const { annotator, toolbar, viewer } = companion;
    if (!viewer.isReady) {
      viewer.connect();
      continue;
    }
    toolbar.attach(panel());
    if (viewer.series === series) {
      annotator.follow();
    } else {
      series = viewer.series;
      companion.opened().catch((error) => companion.fail(error));
    }
  }
}

main();
