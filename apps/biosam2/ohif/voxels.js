/** Voxel files that the server sends and takes (NRRD, NIfTI), and changes of an overlay. */

// Offsets of a NIfTI-1 header; the server writes labels as bytes.
const NIFTI_HEADER = { dimensions: 40, type: 70, offset: 108 };
const NIFTI_BYTES = 2;
const NEWLINE = 10;
const GZIP_MAGIC = [0x1f, 0x8b];

/** Decompresses gzip; other bytes are returned as they are. */
async function inflated(bytes) {
  if (bytes[0] !== GZIP_MAGIC[0] || bytes[1] !== GZIP_MAGIC[1]) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** Voxels of an 8-bit NRRD file, raw or gzip. */
export async function readNrrd(buffer) {
  const bytes = new Uint8Array(buffer);
  const start = bytes.findIndex((byte, n) => byte === NEWLINE && bytes[n + 1] === NEWLINE) + 2;
  if (start < 2) throw new Error('The answer is no NRRD file.');
  return inflated(bytes.subarray(start));
}

/** Reads an 8-bit NIfTI-1 file, gzip or not: {dimensions, voxels}. */
export async function readNifti(buffer) {
  const bytes = await inflated(new Uint8Array(buffer));
  const header = new DataView(bytes.buffer, bytes.byteOffset);
  if (header.getInt16(NIFTI_HEADER.type, true) !== NIFTI_BYTES) throw new Error('The label is no NIfTI file of bytes.');
  const dimensions = [1, 2, 3].map((axis) => header.getInt16(NIFTI_HEADER.dimensions + 2 * axis, true));
  return { dimensions, voxels: bytes.slice(header.getFloat32(NIFTI_HEADER.offset, true)) };
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

/** The sparse change of an overlay that leads from one array of voxels to another. */
export class Change {
  constructor(from = [], to = []) {
    this.numbers = [];
    for (let n = 0; n < from.length; n += 1) if (from[n] !== to[n]) this.numbers.push(n);
    this.before = this.numbers.map((number) => from[number]);
    this.after = this.numbers.map((number) => to[number]);
  }

  apply(voxels) {
    this.numbers.forEach((number, n) => (voxels[number] = this.after[n]));
  }

  revert(voxels) {
    this.numbers.forEach((number, n) => (voxels[number] = this.before[n]));
  }
}

/**
 * The overlay with an answer in it, a new array. Other segments keep their voxels.
 *
 * @param voxels Overlay.
 * @param base Overlay without the object's earlier answers, which give way to this one.
 * @param mask Answer, non-zero inside.
 * @param segment Index of the segment.
 * @param inside Function of a voxel number: whether it lies in the slice of the answer. Null: everywhere.
 * @param replace Whether voxels that the segment has in `base` can be removed.
 */
export function withMask(voxels, base, mask, segment, inside, replace) {
  const after = voxels.slice();
  for (let n = 0; n < mask.length; n += 1) {
    const free = base[n] === 0 || (replace && base[n] === segment);
    // Only these can change; whether they are inside costs more to find out.
    if (!(mask[n] || voxels[n] !== base[n] || (replace && free)) || (inside && !inside(n))) continue;
    const unmarked = replace && free ? 0 : base[n];
    after[n] = mask[n] && free ? segment : unmarked;
  }
  return after;
}
