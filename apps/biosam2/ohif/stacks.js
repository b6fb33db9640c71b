/** Stacks of parallel planes that prompts lie on: the slices across an axis of the series, or an oblique view. */

const PARALLEL = 0.999; // cosine between the normals of a view and of a stack
const FLAT = 0.6; // planes; points of one plane differ less across it, also after rounding on the screen
const MOST = 4; // voxels of an oblique stack, as a multiple of the series'

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
export const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const combined = (factors, vectors) => [0, 1, 2].map((side) => dot(factors, vectors.map((vector) => vector[side])));

/** Millimetres (LPS) of one voxel along i, j and k. */
export const edges = ({ spacing, direction }) =>
  spacing.map((side, axis) => direction.slice(3 * axis, 3 * axis + 3).map((cosine) => cosine * side));

/**
 * Parallel planes. A place in a stack is [x, y, z], like a voxel index; the plane is its coordinate along `axis`.
 *
 * `rows` [a, b, c, d] give the coordinates of voxel [i, j, k], a i + b j + c k + d; `columns` and `origin` the voxel
 * of a place. `size` counts places, `thickness` is that of a plane's mask in planes, `normal` a vector in LPS.
 */
export class Stack {
  constructor(properties) {
    Object.assign(this, properties);
  }

  /** Slices across an axis (0, 1, 2) of the series. */
  static across({ dimensions, direction }, axis) {
    const rows = [0, 1, 2].map((side) => [0, 1, 2, 3].map((column) => Number(column === side)));
    const normal = direction.slice(3 * axis, 3 * axis + 3);
    return new Stack({ axis, normal, size: dimensions, thickness: 1, rows, columns: rows, origin: [0, 0, 0], isNative: true });
  }

  /** Planes parallel to an oblique view, as far apart as OHIF scrolls; one of them is where `through` lies. */
  static oblique(grid, normal, up, through) {
    const { dimensions, spacing } = grid;
    const sides = edges(grid);
    const vectors = [cross(up, normal), up.map((value) => -value), normal];
    const along = sides.map((side) => Math.abs(dot(side, normal)));
    const pixel = Math.min(...spacing);
    const lengths = [pixel, pixel, Math.hypot(...along)]; // millimetres
    const extents = (end) =>
      vectors.map((vector) =>
        sides.reduce((sum, side, axis) => sum + end(-dot(side, vector) / 2, dot(side, vector) * (dimensions[axis] - 0.5)), 0)
      );
    const [low, high] = [extents(Math.min), extents(Math.max)];
    const count = low.reduce((product, value, n) => (product * (high[n] - value)) / lengths[n], 1);
    const coarser = Math.max(1, Math.sqrt(count / (MOST * dimensions[0] * dimensions[1] * dimensions[2])));
    lengths[0] *= coarser;
    lengths[1] *= coarser;
    const rows = vectors.map((vector, n) => sides.map((side) => dot(side, vector) / lengths[n]));
    const first = low.map((value, n) => Math.floor(value / lengths[n]));
    first[2] = dot(rows[2], through) - Math.ceil(dot(rows[2], through) - first[2]);
    const columns = vectors.map((vector, n) =>
      sides.map((side, axis) => (dot(side, vector) * lengths[n]) / spacing[axis] ** 2)
    );
    return new Stack({
      axis: 2,
      normal,
      size: first.map((value, n) => Math.ceil(high[n] / lengths[n] - value) + 1),
      thickness: (along[0] + along[1] + along[2]) / lengths[2], // every voxel that the plane cuts
      rows: rows.map((row, n) => [...row, -first[n]]),
      columns,
      origin: combined(first, columns),
    });
  }

  place(ijk) {
    return this.rows.map((row) => dot(row, ijk) + row[3]);
  }

  /** Whether a drawn shape lies in one plane of the stack. */
  fits({ points, normal }) {
    const planes = points.map((point) => this.place(point)[this.axis]);
    return Math.abs(dot(this.normal, normal)) > PARALLEL && Math.max(...planes) - Math.min(...planes) < FLAT;
  }

  /** Voxel [i, j, k] in the middle of a plane. */
  middle(plane) {
    const place = this.size.map((side, axis) => (axis === this.axis ? plane : side / 2));
    return combined(place, this.columns).map((value, axis) => value + this.origin[axis]);
  }

  /** Function of a voxel number: whether the mask of a plane can hold the voxel. */
  holds(plane, [width, height]) {
    const row = this.rows[this.axis];
    return (number) => {
      const ijk = [number % width, Math.floor(number / width) % height, Math.floor(number / (width * height))];
      return Math.floor((dot(row, ijk) + row[3] - plane) / this.thickness + 0.5) === 0;
    };
  }

  /** What a request says of the stack, or of the one plane that it is about; of slices of the series nothing. */
  params(plane) {
    if (this.isNative) return {};
    const { origin, columns, size, thickness } = this;
    if (plane === undefined) return { view: { origin, axes: columns, size } };
    const [x, y, z] = columns;
    const axes = [x, y, z.map((value) => value * thickness)];
    return { view: { origin: origin.map((value, axis) => value + plane * z[axis]), axes, size: [size[0], size[1], 1] } };
  }
}

/** The stack of a drawn shape {points [[i, j, k]], normal, up}: one of those `used` for the object where it fits. */
export function stackOf(drawn, grid, used) {
  const slices = [2, 0, 1].map((axis) => Stack.across(grid, axis));
  const found = [...used, ...slices].find((stack) => stack.fits(drawn));
  return found ?? Stack.oblique(grid, drawn.normal, drawn.up, drawn.points[0]);
}
