/** The toolbar in MONAI Label's panel: buttons, keys, progress and help. */

const ACTIONS = [
  // name, key, text, help
  ['point', 'p', 'Point', 'Click on the object'],
  ['box', 'b', 'Box', 'Drag a box around the object'],
  ['scribble', 'g', 'Scribble', 'Draw a stroke on the object'],
  ['lasso', 'l', 'Lasso', 'Draw an outline around the object'],
  ['negative', 'x', 'Negative', 'The next prompts are not the object'],
  ['volume', 'm', 'Volume', 'Follow it through the volume'],
  ['live', 'v', 'Live', 'Run after every prompt'],
  ['run', 'r', 'Run', 'Run the prompts now'],
  ['auto', 'a', 'Auto', 'All labels, as in the saved ones'],
  ['refine', 'f', 'Refine', 'Prompts correct what is drawn'],
  ['next', 'n', 'New object', 'Accept it, begin the next'],
  ['undo', 'ctrl+z', 'Undo', 'Take back the last step'],
  ['redo', 'ctrl+y', 'Redo', 'Repeat what was taken back'],
  ['save', 'ctrl+s', 'Save label', 'Save all segments as the final label'],
  ['load', 'ctrl+l', 'Load label', 'Show the stored label'],
  ['sample', 'alt+n', 'Next sample', 'Open the image to label next'],
  ['train', 'alt+t', 'Update model', 'Train on saved labels, or stop'],
  ['help', '?', 'Keys', 'Show the keys'],
];
export const TOOLS = ['point', 'box', 'scribble', 'lasso'];
export const SWITCHES = ['negative', 'volume', 'live'];

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/** A button with a name in its data-action. */
function button(action, textContent, title, onclick) {
  const made = element('button', { type: 'button', textContent, title, onclick });
  made.dataset.action = action;
  return made;
}

/** Name of a pressed key as in ACTIONS. */
function pressed({ ctrlKey, metaKey, altKey, key, code }) {
  // With alt, a Mac has another character in the place of the letter.
  const letter = altKey && !/^[a-z]$/i.test(key) ? code.replace('Key', '') : key;
  return `${ctrlKey || metaKey ? 'ctrl+' : ''}${altKey ? 'alt+' : ''}${letter.toLowerCase()}`;
}

/** Builds the toolbar; `actions` holds a function for each name of ACTIONS. */
export class Toolbar {
  constructor(actions) {
    this.actions = { ...actions, help: () => (this.help.hidden = !this.help.hidden) };
    const made = ACTIONS.map(([name, key, text, help]) => button(name, text, `${help} (${key})`, this.actions[name]));
    this.buttons = Object.fromEntries(made.map((one) => [one.dataset.action, one]));
    this.segments = element('div', { className: 'biosam2-segments' });
    this.name = element('input', { placeholder: 'New segment', title: 'Name of a new segment, then Enter' });
    this.name.onkeydown = (event) => {
      if (event.key !== 'Enter' || !this.name.value.trim()) return;
      actions.addSegment(this.name.value.trim());
      this.name.value = '';
    };
    const status = () => element('div', { className: 'biosam2-status', role: 'status' });
    this.offered = status();
    this.status = status();
    this.unsure = element('div', { className: 'biosam2-unsure' });
    this.training = status();
    const row = (...cells) => element('tr', {}, ...cells.map((words) => element('td', {}, words)));
    const keys = ACTIONS.map(([, key, text, help]) => row(key, `${text}: ${help}`));
    this.help = element('table', { className: 'biosam2-help', hidden: true }, ...keys);
    const buttons = element('div', { className: 'biosam2-buttons' }, ...Object.values(this.buttons));
    const parts = [buttons, this.segments, this.name, this.offered, this.status, this.unsure, this.training, this.help];
    this.root = element('section', { className: 'biosam2-toolbar', ariaLabel: 'BioSAM-2' }, ...parts);
    window.addEventListener('keydown', (event) => this._key(event), { capture: true });
  }

  /** Puts the toolbar into the panel, above MONAI Label's own parts, unless it is there. */
  attach(panel) {
    if (!panel.contains(this.root)) panel.querySelector('.tabs')?.before(this.root);
  }

  /** Shows the state of the annotation. */
  show(viewer, annotator) {
    for (const name of TOOLS) this.buttons[name].ariaPressed = viewer.tool === name;
    for (const name of SWITCHES) this.buttons[name].ariaPressed = annotator[name];
    this.buttons.refine.ariaPressed = annotator.object.refine;
    this.buttons.undo.disabled = !annotator.done.length;
    this.buttons.redo.disabled = !annotator.undone.length;
    this.status.textContent = annotator.running ? 'Segmenting ...' : annotator.stored.changes ? 'Not saved yet' : '';
    const focused = this.segments.querySelector(':focus')?.dataset.segment;
    const chips = viewer.segments.map((segment) => this._segment(segment, segment.idx === viewer.activeSegment));
    this.segments.replaceChildren(...chips);
    chips.find((chip) => chip.dataset.segment === focused)?.focus();
    const title = 'A correction here is likely to be worth most';
    const mark = ({ slice, voxel }) => button('jump', slice + 1, title, () => this.actions.jump(voxel));
    const marks = annotator.unsure.map(mark);
    this.unsure.replaceChildren(marks.length ? 'Check slices: ' : '', ...marks);
  }

  /** Offers the stored label of the series with a button that loads it; '' offers nothing. */
  offer(text) {
    const load = button('offered', 'Load it', 'Show the stored label (ctrl+l)', this.actions.load);
    this.offered.replaceChildren(...(text ? [text, ' ', load] : []));
  }

  /** Shows the progress of a training; `report` is the address of its report, or ''. */
  showTraining(text, running, report) {
    this.buttons.train.textContent = running ? 'Stop training' : 'Update model';
    const link = report ? element('a', { href: report, target: '_blank', rel: 'noopener', textContent: ' Report' }) : '';
    this.training.replaceChildren(text, link);
  }

  _segment({ name, idx, color }, active) {
    const chip = button('segment', name, 'Draw this segment', () => this.actions.segment(idx));
    chip.dataset.segment = name;
    chip.style.borderLeftColor = color ? `rgb(${color})` : 'transparent';
    chip.ariaPressed = active;
    return chip;
  }

  _key(event) {
    if (!this.root.isConnected || event.target.closest?.('input, textarea, select, [contenteditable]')) return;
    const action = ACTIONS.find(([, key]) => key === pressed(event));
    if (!action || this.buttons[action[0]].disabled) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    this.actions[action[0]]();
  }
}
