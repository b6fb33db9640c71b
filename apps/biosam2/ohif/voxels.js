/** Voxel files that the server sends (NIfTI) and takes (NRRD), and changes of an overlay. */

import { edges } from './stacks.js';

// Offsets of a NIfTI-1 header; the server writes labels as bytes.
const NIFTI_HEADER = { dimensions: 40, type: 70, offset: 108 };
const NIFTI_BYTES = 2;
const GZIP_MAGIC = [0x1f, 0x8b];

/** Bytes that went through a (de)compression, as a Response. */
const through = (transform, bytes) => new Response(new Blob([bytes]).stream().pipeThrough(transform));

/** Decompresses gzip; other bytes are returned as they are. */
async function inflated(bytes) {
  if (GZIP_MAGIC.some((byte, n) => bytes[n] !== byte)) return bytes;
  return new Uint8Array(await through(new DecompressionStream('gzip'), bytes).arrayBuffer());
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
export async function writeNrrd(voxels, grid) {
  const header = [
    'NRRD0004',
    'type: unsigned char',
    'dimension: 3',
    'space: left-posterior-superior',
    `sizes: ${grid.dimensions.join(' ')}`,
    `space directions: ${edges(grid).map((edge) => `(${edge})`).join(' ')}`,
    'encoding: gzip',
    `space origin: (${grid.origin})`,
  ].join('\n');
  return new Blob([header, '\n\n', await through(new CompressionStream('gzip'), voxels).blob()]);
}

/** Where two arrays of voxels differ, and the values there `before` and `after`. */
export class Change {
  constructor(from = [], to = []) {
    const numbers = [];
    for (let n = 0; n < from.length; n += 1) if (from[n] !== to[n]) numbers.push(n);
    this.numbers = Uint32Array.from(numbers);
    this.before = Uint8Array.from(numbers, (number) => from[number]);
    this.after = Uint8Array.from(numbers, (number) => to[number]);
  }

  /** Gives the voxels that differ their values of one side, 'before' or 'after'. */
  put(side, voxels) {
    this.numbers.forEach((number, n) => (voxels[number] = this[side][n]));
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
