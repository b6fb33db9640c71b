/** The toolbar in MONAI Label's panel: buttons, keys, progress and help. */

const ACTIONS = [
  // name, key, text, help
  ['point', 'p', 'Point', 'Click on the object'],
  ['box', 'b', 'Box', 'Drag a box around the object'],
  ['scribble', 'g', 'Scribble', 'Draw a stroke on the object'],
  ['lasso', 'l', 'Lasso', 'Draw an outline around the object'],
  ['sign', 'x', '+', 'Switch between positive and negative prompts'],
  ['volume', 'm', 'Slice', 'Switch between this slice and the whole volume'],
  ['live', 'v', 'Live', 'Run after every prompt'],
  ['run', 'r', 'Run', 'Run the prompts now'],
  ['auto', 'a', 'Auto', 'Segment all labels without a prompt, as learnt from the saved ones'],
  ['refine', 'f', 'Refine', 'Go on with the segment: prompts correct what is drawn'],
  ['next', 'n', 'New object', 'Accept the object and begin the next one'],
  ['undo', 'ctrl+z', 'Undo', 'Take back the last step'],
  ['redo', 'ctrl+y', 'Redo', 'Repeat what was taken back'],
  ['save', 'ctrl+s', 'Save label', 'Save all segments as the final label'],
  ['load', 'ctrl+l', 'Load label', 'Show the stored label'],
  ['sample', 'alt+n', 'Next sample', 'Open the image to label next'],
  ['train', 'alt+t', 'Update model', 'Train on the saved labels, or stop the training'],
  ['help', '?', 'Keys', 'Show the keys'],
];
const ROWS = [
  ['point', 'box', 'scribble', 'lasso', 'sign'],
  ['volume', 'live', 'run', 'refine', 'next'],
  ['undo', 'redo', 'save', 'load'],
  ['auto', 'sample', 'train', 'help'],
];

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const pressed = (event) =>
  [event.ctrlKey || event.metaKey ? 'ctrl+' : '', event.altKey ? 'alt+' : '', event.key.toLowerCase()].join('');

/** Builds the toolbar; `actions` holds a function for each name of ACTIONS. */
export class Toolbar {
  constructor(actions) {
    this.actions = actions;
    this.buttons = {};
    for (const [name, key, text, help] of ACTIONS) {
      this.buttons[name] = element('button', { type: 'button', textContent: text, title: `${help} (${key})` });
      this.buttons[name].dataset.action = name;
      this.buttons[name].addEventListener('click', () => actions[name]());
    }
    this.segments = element('div', { className: 'biosam2-segments' });
    this.name = element('input', { placeholder: 'New segment', title: 'Name of a new segment, then Enter' });
    this.name.addEventListener('keydown', (event) => {
      if (event.key === 'Enter' && this.name.value.trim()) {
        actions.addSegment(this.name.value.trim());
        this.name.value = '';
      }
    });
    this.offered = element('div', { className: 'biosam2-status', role: 'status' });
    this.unsure = element('div', { className: 'biosam2-unsure' });
    this.status = element('div', { className: 'biosam2-status', role: 'status' });
    this.training = element('div', { className: 'biosam2-status' });
    this.help = element('table', { className: 'biosam2-help', hidden: true });
    this.help.append(
      ...ACTIONS.map(([, key, text, help]) =>
        element('tr', {}, element('td', { textContent: key }), element('td', { textContent: `${text}: ${help}` }))
      )
    );
    const rows = ROWS.map((row) => element('div', { className: 'biosam2-row' }, ...row.map((name) => this.buttons[name])));
    const parts = [this.segments, this.name, this.offered, this.status, this.unsure, this.training, this.help];
    this.root = element('section', { className: 'biosam2-toolbar', ariaLabel: 'BioSAM-2' }, ...rows, ...parts);
    window.addEventListener('keydown', (event) => this._key(event), { capture: true });
  }

  /** Puts the toolbar into the panel, above MONAI Label's own parts, unless it is there. */
  attach(panel) {
    if (!panel.contains(this.root)) panel.querySelector('.tabs')?.before(this.root);
  }

  /** Shows the state of the annotation. */
  show({ tool, annotator, segments, active }) {
    for (const name of ['point', 'box', 'scribble', 'lasso']) this._on(name, tool === name);
    this._on('live', annotator.live);
    this._on('refine', annotator.object.refine);
    this._on('volume', annotator.volume);
    this.buttons.volume.textContent = annotator.volume ? 'Volume' : 'Slice';
    this.buttons.sign.textContent = annotator.positive ? '+' : '\u2212';
    this.buttons.sign.classList.toggle('negative', !annotator.positive);
    this.buttons.undo.disabled = !annotator.done.length;
    this.buttons.redo.disabled = !annotator.undone.length;
    this.status.textContent = annotator.running ? 'Segmenting ...' : annotator.dirty ? 'Not saved yet' : '';
    this.segments.replaceChildren(...segments.map((segment) => this._segment(segment, segment.index === active)));
    this.unsure.replaceChildren(
      ...(annotator.unsure.length ? ['Check slices: '] : []),
      ...annotator.unsure.map((slice) => {
        const title = 'A correction here is likely to be worth most';
        const button = element('button', { type: 'button', textContent: slice + 1, title });
        button.addEventListener('click', () => this.actions.jump(slice));
        return button;
      })
    );
  }

  /** Offers the stored label of the series with a button that loads it; '' offers nothing. */
  offer(text) {
    const button = element('button', { type: 'button', textContent: 'Load it', title: 'Show the stored label (ctrl+l)' });
    button.dataset.action = 'offered';
    button.addEventListener('click', () => this.actions.load());
    this.offered.replaceChildren(...(text ? [text, ' ', button] : []));
  }

  /** Shows the progress of a training; `report` is the address of its report, or ''. */
  showTraining(text, running, report) {
    this.buttons.train.textContent = running ? 'Stop training' : 'Update model';
    const link = report ? element('a', { href: report, target: '_blank', rel: 'noopener', textContent: ' Report' }) : '';
    this.training.replaceChildren(text, link);
  }

  toggleHelp() {
    this.help.hidden = !this.help.hidden;
  }

  _segment({ index, label, colour }, active) {
    const chip = element('button', { type: 'button', textContent: label, title: 'Draw this segment' });
    chip.dataset.segment = label;
    chip.style.borderLeftColor = colour ? `rgb(${[...colour].slice(0, 3).join(',')})` : 'transparent';
    chip.classList.toggle('on', active);
    chip.setAttribute('aria-pressed', active);
    chip.addEventListener('click', () => this.actions.segment(index));
    return chip;
  }

  _on(name, on) {
    this.buttons[name].classList.toggle('on', on);
    this.buttons[name].setAttribute('aria-pressed', on);
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
