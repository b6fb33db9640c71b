/**
 * Adapter to OHIF and cornerstone: the only file that uses the objects that OHIF leaves in the window.
 *
 * Voxel indices are [i, j, k] = column, row, slice of the displayed series; voxel arrays have i fastest.
 */

import { cross } from './stacks.js';

const GLOBALS = ['services', 'commandsManager', 'cornerstone', 'cornerstoneTools', 'extensionManager'];
const SERVICES = [
  'segmentationService',
  'uiNotificationService',
  'viewportGridService',
  'cornerstoneViewportService',
  'displaySetService',
];
const FREEHAND = 'BioSAM2Freehand';
const TOOLS = { point: 'Probe', box: 'RectangleROI', scribble: FREEHAND, lasso: FREEHAND };
const TOOL_PARTS = ['annotation', 'segmentation', 'ToolGroupManager', 'PlanarFreehandROITool'];
const PROMPT = { getTextLines: () => [], calculateStats: false }; // a prompt is no measurement
const PANEL_TOOL = 'ProbeMONAILabel'; // MONAI Label's own point tool
const TOOL_GROUPS = ['mpr', 'default'];
const PRIMARY_BUTTON = 1;
const CONNECT_EVERY_MS = 5000;
const SEGMENTATION = '1'; // MONAI Label's panel always draws into this segmentation
const COLOURS = { true: 'rgb(80, 255, 120)', false: 'rgb(255, 90, 90)' };

/** Names of the objects that the companion needs and that this build of OHIF does not have. */
export function missingParts() {
  const needed = [[window, GLOBALS], [window.services, SERVICES], [window.cornerstoneTools, TOOL_PARTS]];
  return needed.flatMap(([owner, names]) => names.filter((name) => !owner?.[name]));
}

/** MONAI Label's panel, or null while it is not shown. */
export const panel = () => document.querySelector('.monaiLabelPanel');

/** cornerstone's freehand tool, which refuses views across the axes of the image: here a view has axes of its own. */
const freehandTool = () =>
  class extends window.cornerstoneTools.PlanarFreehandROITool {
    static toolName = FREEHAND;

    constructor(...options) {
      super(...options);
      const { activateDraw } = this;
      this.activateDraw = (event, ...rest) => {
        const { viewport } = window.cornerstone.getEnabledElement(event.detail.element);
        const { getImageData } = viewport;
        const { viewUp, viewPlaneNormal } = viewport.getCamera();
        const direction = [...cross(viewUp, viewPlaneNormal), ...viewUp, ...viewPlaneNormal];
        const spacing = Array(3).fill(Math.min(...viewport.getImageData().spacing));
        viewport.getImageData = () => ({ direction, spacing });
        try {
          activateDraw(event, ...rest);
        } finally {
          viewport.getImageData = getImageData;
        }
      };
    }
  };

/** OHIF with one series on the screen. */
export class Viewer {
  constructor() {
    this.services = window.services;
    this.tools = window.cornerstoneTools;
    this.own = new Map(); // annotations that the companion's tools drew, by UID
    this.tool = 'point'; // name in TOOLS, or null while OHIF's own tools have the mouse
    this.onDrawn = null; // called with each prompt that is drawn
    this._connected = 0;
    this.tools.addTool(freehandTool());
    window.cornerstone.eventTarget.addEventListener(this.tools.Enums.Events.ANNOTATION_COMPLETED, (event) =>
      this._drawn(event.detail.annotation)
    );
    document.addEventListener('pointerover', (event) => this._activate(event.target));
  }

  /** Whether the overlay of the displayed series exists: MONAI Label's panel is connected. */
  get isReady() {
    try {
      return Boolean(panel() && this._overlay() && this._volume());
    } catch {
      return false; // the services come one after another
    }
  }

  /** Enters the page's own server into the panel and presses its connect button, at most every few seconds. */
  connect() {
    // The panel makes its overlay from the image ids, which OHIF finds while it loads.
    if (!this._displaySet()?.imageIds || Date.now() - this._connected < CONNECT_EVERY_MS) return;
    this._connected = Date.now();
    const input = document.querySelector('#monailabelServerURL');
    input.value = `${window.location.origin}/`;
    input.dispatchEvent(new Event('focusout', { bubbles: true }));
    // The panel takes the value over after this event, and would ask the server of before until then.
    setTimeout(() => panel()?.querySelector('button.actionButton').click());
  }

  /** Series Instance UID of the displayed images. */
  get series() {
    return this._displaySet().SeriesInstanceUID;
  }

  /** Grid of the series: {dimensions, spacing, origin, direction}, millimetres in LPS. */
  get grid() {
    const { dimensions, spacing, origin, direction } = this._volume();
    return { dimensions: [...dimensions], spacing: [...spacing], origin: [...origin], direction: [...direction] };
  }

  /** Segments of the overlay as the server has them: [{name, idx, color [red, green, blue]}]. */
  get segments() {
    const { segmentationService } = this.services;
    const found = Object.values(segmentationService.getSegmentation(SEGMENTATION)?.segments ?? {}).filter(Boolean);
    const color = (idx) => segmentationService.getSegmentColor(this._firstView(), SEGMENTATION, idx)?.slice(0, 3);
    return found.map(({ segmentIndex: idx, label: name }) => ({ name, idx, color: color(idx) }));
  }

  /** Index of the active segment. */
  get activeSegment() {
    const found = this.services.segmentationService.getActiveSegment(this._firstView());
    return found?.segmentIndex ?? this.segments[0]?.idx ?? 1;
  }

  set activeSegment(index) {
    this.services.segmentationService.setActiveSegment(SEGMENTATION, index);
  }

  /** Adds a segment and returns its index. */
  addSegment(label) {
    const index = Math.max(0, ...this.segments.map(({ idx }) => idx)) + 1;
    this.services.segmentationService.addSegment(SEGMENTATION, { segmentIndex: index, label });
    return index;
  }

  /** Copy of the overlay's voxels, Uint8Array. */
  readOverlay() {
    return new Uint8Array(this._overlay().voxelManager.getCompleteScalarDataArray());
  }

  /** Replaces the overlay's voxels and draws them. */
  writeOverlay(voxels) {
    this._overlay().voxelManager.setCompleteScalarDataArray(voxels);
    this.tools.segmentation.triggerSegmentationEvents.triggerSegmentationDataModified(SEGMENTATION);
  }

  /** Gives the primary mouse button to a tool of the companion, or back to OHIF's with null. */
  use(tool) {
    this.tool = tool;
    const name = tool ? TOOLS[tool] : PANEL_TOOL;
    const groups = TOOL_GROUPS.map((id) => this.tools.ToolGroupManager.getToolGroup(id));
    for (const group of groups.filter(Boolean)) {
      if (!group.hasTool(name)) group.addTool(name, PROMPT);
      const current = group.getActivePrimaryMouseButtonTool();
      if (current) group.setToolPassive(current, { removeAllBindings: true });
      group.setToolActive(name, { bindings: [{ mouseButton: PRIMARY_BUTTON }] });
    }
  }

  /** Colours an annotation by its sign and keeps it where it is. */
  style(uid, positive) {
    const colour = COLOURS[positive];
    this.tools.annotation.locking.setAnnotationLocked(uid, true); // else a click beside it would move it
    const colours = { color: colour, colorHighlighted: colour, colorSelected: colour };
    this.tools.annotation.config.style.setAnnotationStyles(uid, colours);
  }

  /** Shows these annotations of the companion, and no others of it: cornerstone draws hidden points all the same. */
  showOnly(uids) {
    const { state } = this.tools.annotation;
    for (const [uid, annotation] of this.own) {
      const [shown, wanted] = [Boolean(state.getAnnotation(uid)), uids.includes(uid)];
      if (shown && !wanted) state.removeAnnotation(uid);
      if (!shown && wanted) state.addAnnotation(annotation, annotation.metadata.FrameOfReferenceUID);
    }
    for (const engine of window.cornerstone.getRenderingEngines()) engine.render();
  }

  /** Scrolls every view to a voxel. */
  jump(ijk) {
    const world = this._volume().imageData.indexToWorld(ijk);
    for (const id of this._views().keys()) {
      const viewport = this._viewport(id);
      viewport.jumpToWorld?.(world);
      viewport.render();
    }
  }

  /** Shows a notification: type is success, info, warning or error. */
  notify(type, message) {
    this.services.uiNotificationService.show({ title: 'BioSAM-2', message, type, duration: 6000 });
  }

  /** Calls back with the reason whenever a request of OHIF itself fails whose address matches. */
  onFailedRequest(addresses, callback) {
    const send = window.XMLHttpRequest.prototype.send;
    window.XMLHttpRequest.prototype.send = function (...body) {
      this.addEventListener('loadend', () => {
        if (this.status < 400 || !addresses.test(this.responseURL)) return;
        const text = this.response instanceof ArrayBuffer ? new TextDecoder().decode(this.response) : this.responseText;
        callback(this.status, text);
      });
      return send.apply(this, body);
    };
  }

  /** Makes the view below the mouse the active one: OHIF drops what is drawn first in another. */
  _activate(pane) {
    const [view, second] = pane.querySelectorAll('[data-viewport-uid]');
    if (this.tool && view && !second) this.services.viewportGridService.setActiveViewportId(view.dataset.viewportUid);
  }

  _drawn(annotation) {
    if (!this.tool || annotation.metadata.toolName !== TOOLS[this.tool] || this.own.has(annotation.annotationUID)) return;
    this.own.set(annotation.annotationUID, annotation);
    const world = annotation.data.contour?.polyline ?? annotation.data.handles.points;
    const { imageData } = this._volume();
    const points = world.map((place) => [...imageData.worldToIndex(place)]);
    const { viewPlaneNormal: normal, viewUp: up } = annotation.metadata;
    this.onDrawn({ kind: this.tool, uid: annotation.annotationUID, points, normal, up });
  }

  /** OHIF's state of every view, by its id. */
  _views() {
    return this.services.viewportGridService.getState().viewports;
  }

  _firstView() {
    return [...this._views().keys()][0];
  }

  _displaySet() {
    const [uid] = this._views().get(this._firstView())?.displaySetInstanceUIDs ?? [];
    return uid && this.services.displaySetService.getDisplaySetByUID(uid);
  }

  _viewport(id = this._firstView()) {
    return this.services.cornerstoneViewportService.getCornerstoneViewport(id);
  }

  _volume() {
    return window.cornerstone.cache.getVolume(this._viewport().getVolumeId());
  }

  _overlay() {
    return this.services.segmentationService.getLabelmapVolume(SEGMENTATION);
  }
}
