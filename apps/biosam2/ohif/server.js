/** Requests to the server that served the page. */

const CLIENT_KEY = 'biosam2-client';
export const FINAL = 'final'; // tag of the labels that people saved

/** The error of a request that the server refused, or that did not reach it (status 0). */
const serverError = (status, message) => Object.assign(new Error(message), { status });

/** The reason in the body of a refused request. */
export function reason(status, text) {
  try {
    const { detail } = JSON.parse(text);
    return typeof detail === 'string' ? detail : JSON.stringify(detail);
  } catch {
    return text || `The server answered with status ${status}.`;
  }
}

async function request(path, options = {}) {
  const answer = await fetch(path, options).catch(() => {
    throw serverError(0, 'The server cannot be reached. The overlay is kept: try again when it is back.');
  });
  if (!answer.ok) throw serverError(answer.status, reason(answer.status, await answer.text()));
  return answer;
}

/** The JSON at a path; null where there is none. */
async function found(path) {
  try {
    return await (await request(path)).json();
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

async function post(path, values = {}) {
  const headers = { 'Content-Type': 'application/json' };
  return (await request(path, { method: 'POST', body: JSON.stringify(values), headers })).json();
}

const query = (values) => new URLSearchParams(values);

/** Name under which this browser saves labels, kept between visits. */
const clientId = () => (localStorage[CLIENT_KEY] ??= `ohif-${Math.random().toString(36).slice(2)}`);

/** Runs a model: {params, file} of its answer; `start` is a mask that the prompts correct, or null. */
export async function infer(model, series, params, start, signal) {
  const form = new FormData();
  form.append('params', JSON.stringify({ ...params, client_id: clientId() }));
  if (start) form.append('label', start, 'start.nrrd');
  const answer = await request(`/infer/${model}?${query({ image: series })}`, { method: 'POST', body: form, signal });
  const parts = await answer.formData();
  return { params: JSON.parse(parts.get('params')), file: await parts.get('image').arrayBuffer() };
}

/** What the store says of the final label of a series, or else of a model's pre-segmentation; null where none is. */
export async function labelInfo(series) {
  for (const tag of [FINAL, 'original']) {
    const info = await found(`/datastore/label/info?${query({ label: series, tag })}`);
    if (info) return { ...info, tag };
  }
  return null;
}

/** File of a label of a series, on the grid of its images. */
export async function labelFile(series, tag) {
  return (await request(`/datastore/label?${query({ label: series, tag })}`)).arrayBuffer();
}

/**
 * Saves a label, one byte for each voxel, i fastest: its version.
 *
 * @param replaces Version that the label was drawn on ('' for none); a newer one in the store answers 409.
 *   Undefined: saved in any case.
 */
export async function saveLabel(series, voxels, names, grid, replaces) {
  const form = new FormData();
  form.append('params', JSON.stringify({ label_info: names, client_id: clientId(), grid, replaces }));
  form.append('label', new Blob([voxels]), 'label.bin');
  const answer = await request(`/datastore/label?${query({ image: series, tag: FINAL })}`, { method: 'PUT', body: form });
  return (await answer.json()).version;
}

/** The image to label next: its DICOM keys, why it was chosen, and the slice to look at; {} where none is left. */
export const nextSample = () => post('/activelearning/hybrid', { client_id: clientId() });

/** The last training: {status, stats}; {} before the first one. */
export const training = async () => (await found('/train/')) ?? {};

/** Address of the page about the last training that ended. */
export const REPORT = '/train/report';

/** Starts a training of every trainer with its own settings. */
export const startTraining = () => post('/train/');

/** Stops the training that runs. */
export const stopTraining = () => request('/train/', { method: 'DELETE' });
