/** Voxel files that the server sends and takes (NRRD, NIfTI), and sparse changes of an overlay. */

const NIFTI_TYPES = { 2: Uint8Array, 4: Int16Array, 8: Int32Array, 16: Float32Array, 256: Int8Array, 512: Uint16Array };
const NIFTI_HEADER = { dimensions: 40, type: 70, offset: 108 };
const GZIP_MAGIC = [0x1f, 0x8b];

/** Decompresses gzip; other bytes are returned as they are. */
async function inflated(bytes) {
  if (bytes[0] !== GZIP_MAGIC[0] || bytes[1] !== GZIP_MAGIC[1]) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Reads an 8-bit NRRD (raw or gzip): {dimensions, voxels}. */
export async function readNrrd(buffer) {
  const bytes = new Uint8Array(buffer);
  let end = 0;
  while (!(bytes[end] === 10 && bytes[end + 1] === 10)) {
    if (++end >= bytes.length) throw new Error('The answer is no NRRD file.');
  }
  const header = new TextDecoder().decode(bytes.subarray(0, end));
  const dimensions = /^sizes: (.*)$/m.exec(header)[1].trim().split(/\s+/).map(Number);
  return { dimensions, voxels: await inflated(bytes.subarray(end + 2)) };
}

/** Reads a NIfTI-1 file, gzip or not: {dimensions, voxels}; voxels are labels up to 255. */
export async function readNifti(buffer) {
  const bytes = await inflated(new Uint8Array(buffer));
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const dimensions = [1, 2, 3].map((axis) => view.getInt16(NIFTI_HEADER.dimensions + 2 * axis, true));
  const Type = NIFTI_TYPES[view.getInt16(NIFTI_HEADER.type, true)];
  if (!Type) throw new Error('The label has a data type that cannot be shown.');
  const start = view.getFloat32(NIFTI_HEADER.offset, true);
  const count = dimensions.reduce((product, side) => product * side);
  const values = new Type(bytes.slice(start, start + count * Type.BYTES_PER_ELEMENT).buffer);
  return { dimensions, voxels: Uint8Array.from(values) };
}

/** Writes an 8-bit NRRD with its geometry (millimetres, LPS), gzip compressed, as a Blob. */
export async function writeNrrd(voxels, { dimensions, spacing, origin, direction }) {
  const axes = [0, 1, 2].map((axis) => `(${[0, 1, 2].map((row) => direction[3 * axis + row] * spacing[axis])})`);
  const header = [
    'NRRD0004',
    'type: unsigned char',
    'dimension: 3',
    'space: left-posterior-superior',
    `sizes: ${dimensions.join(' ')}`,
    `space directions: ${axes.join(' ')}`,
    'kinds: domain domain domain',
    'encoding: gzip',
    `space origin: (${origin.join(',')})`,
    '',
    '',
  ].join('\n');
  const stream = new Blob([voxels]).stream().pipeThrough(new CompressionStream('gzip'));
  return new Blob([header, await new Response(stream).blob()]);
}

/** A sparse change of an overlay: voxel numbers with their values before and after. */
export class Change {
  constructor(numbers = [], before = [], after = []) {
    Object.assign(this, { numbers, before, after });
  }

  /** The change that leads from one array of voxels to another. */
  static between(from, to) {
    const change = new Change();
    for (let n = 0; n < from.length; n += 1) if (from[n] !== to[n]) change.add(n, from[n], to[n]);
    return change;
  }

  add(number, before, after) {
    this.numbers.push(number);
    this.before.push(before);
    this.after.push(after);
  }

  apply(voxels) {
    this.numbers.forEach((number, n) => (voxels[number] = this.after[n]));
  }

  revert(voxels) {
    this.numbers.forEach((number, n) => (voxels[number] = this.before[n]));
  }
}

/**
 * Puts an answer into the overlay: {step, drawn}, the changes from the overlay before, and from the one without
 * the object's answers. Other segments keep their voxels.
 *
 * @param voxels Overlay, changed in place.
 * @param base Overlay without the object's earlier answers.
 * @param mask Answer, non-zero inside.
 * @param segment Index of the segment.
 * @param inside Function of a voxel number: whether it lies in the slice of the answer. Null: everywhere.
 * @param replace Whether voxels that the segment has in `base` can be removed.
 */
export function drawMask(voxels, base, mask, segment, inside, replace) {
  const [step, drawn] = [new Change(), new Change()];
  for (let n = 0; n < mask.length; n += 1) {
    const before = voxels[n];
    const free = base[n] === 0 || (replace && base[n] === segment);
    // Nothing changes outside of the slice of the answer.
    if ((mask[n] || before !== base[n] || (replace && free)) && (!inside || inside(n))) {
      voxels[n] = mask[n] && free ? segment : replace && free ? 0 : base[n];
      if (voxels[n] !== before) step.add(n, before, voxels[n]);
    }
    if (voxels[n] !== base[n]) drawn.add(n, base[n], voxels[n]);
  }
  return { step, drawn };
}
