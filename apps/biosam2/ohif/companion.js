/** Entry: waits for MONAI Label's mode of OHIF and adds the toolbar to its panel. */

import { Annotator } from './annotator.js';
import { REPORT, labelInfo, nextSample, reason, startTraining, stopTraining, training } from './server.js';
import { Stack } from './stacks.js';
import { SWITCHES, TOOLS, Toolbar } from './toolbar.js';
import { Viewer, missingParts } from './viewer.js';

const POLL_MS = 400;
const TRAINING_POLL_MS = 2000;
const IDLE_POLL_MS = 15_000;
// Without OHIF's own question whether a training runs: 404 means no.
const OHIF_REQUESTS = /\/(infer|activelearning|train)\/(?!.*check_if_running)/;
const SLICE_KEY = 'biosam2-slice';

const pause = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

class Companion {
  constructor(viewer) {
    this.viewer = viewer;
    this.tool = 'point';
    this.annotator = new Annotator(viewer, { changed: () => this.show(), failed: (error) => this.fail(error) });
    this.toolbar = new Toolbar(this.actions());
    viewer.onFailedRequest(OHIF_REQUESTS, (status, text) => viewer.notify('error', reason(status, text)));
    this.watchTraining();
  }

  actions() {
    const { annotator } = this;
    const tool = (name) => () => this.use(this.tool === name ? null : name);
    const flip = (name) => () => {
      annotator[name] = !annotator[name];
      this.show();
    };
    const guarded = (work) => () => work().catch((error) => this.fail(error));
    return {
      ...Object.fromEntries(TOOLS.map((name) => [name, tool(name)])),
      ...Object.fromEntries(SWITCHES.map((name) => [name, flip(name)])),
      run: () => annotator.run(),
      refine: () => annotator.start(!annotator.object.refine),
      next: () => annotator.start(),
      auto: () => annotator.segmentAll(),
      segment: (index) => annotator.take(index),
      addSegment: (label) => annotator.start(false, this.viewer.addSegment(label)),
      undo: () => annotator.undo(),
      redo: () => annotator.redo(),
      save: guarded(() => this.save()),
      load: guarded(() => this.load()),
      sample: guarded(() => this.next()),
      train: guarded(() => this.train()),
      help: () => this.toolbar.toggleHelp(),
      jump: (slice) => this.jump(slice),
    };
  }

  use(tool) {
    this.tool = tool;
    this.viewer.use(tool);
    this.show();
  }

  show() {
    if (!this.toolbar || !this.viewer.panel) return;
    this.toolbar.attach(this.viewer.panel);
    const { segments, activeSegment: active } = this.viewer;
    this.toolbar.show({ tool: this.tool, annotator: this.annotator, segments, active });
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
    this.use(this.tool);
    const slice = sessionStorage.getItem(SLICE_KEY);
    sessionStorage.removeItem(SLICE_KEY);
    if (slice !== null) this.jump(Number(slice));
    const stored = await labelInfo(this.viewer.series);
    const what = stored?.automatic ? "a model's label" : 'a label';
    if (stored) this.toolbar.offer(`The store has ${what} of this series${byWhom(stored)}.`);
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
      this.annotator.dirty && 'The label of this series is not saved.',
    ];
    if (!window.confirm(question.filter(Boolean).join('\n\n'))) return;
    if (Number.isInteger(slice)) sessionStorage.setItem(SLICE_KEY, slice);
    window.location.assign(`${window.PUBLIC_URL}monai-label?StudyInstanceUIDs=${sample.StudyInstanceUID}`);
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

  jump(slice) {
    const stack = this.annotator.object.prompts[0]?.stack ?? Stack.across(this.viewer.grid, 2);
    this.viewer.jump(stack.middle(slice));
  }
}

const byWhom = (stored) => (stored.client_id || stored.user ? ` by ${stored.client_id || stored.user}` : '');

const isRunning = ({ status }) => status === 'RUNNING' || status === 'SUBMITTED';

/** One line about a training. */
function progress(last) {
  const { epoch, total_epochs: total, before, eval: now, after, published, reason: why } = last.stats ?? {};
  const shown = (measured) => measured?.dice?.toFixed(2) ?? '?';
  if (isRunning(last)) {
    return total ? `Training: epoch ${epoch ?? 0} of ${total}, Dice ${shown(now)} (before: ${shown(before)})` : 'Training starts ...';
  }
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
    await pause(POLL_MS);
    if (!document.querySelector('.monaiLabelPanel')) {
      series = null;
      continue;
    }
    const missing = missingParts();
    if (missing.length) {
      console.warn(`The BioSAM-2 toolbar is off: this build of OHIF has no ${missing.join(', ')}.`);
      return;
    }
    companion ??= new Companion(new Viewer());
    if (!companion.viewer.isReady) {
      companion.viewer.connect();
    } else if (companion.viewer.series !== series) {
      series = companion.viewer.series;
      companion.opened().catch((error) => companion.fail(error));
    } else {
      companion.toolbar.attach(companion.viewer.panel);
      companion.annotator.follow();
    }
  }
}

main();
