// A heat map over a picture, drawn from the logits of a case as mai/report/heatmap.py draws it.

const SYNTHETIC = [230, 97, 1];
const AUTHENTIC = [40, 110, 190];
const FULL_LOG_ODDS = 4;
const MAX_ALPHA = 0.9;
const LAYER_PX = 512;

/** The maps that are laid over the picture: whole windows, or the close-ups of a network that has no others. */
function drawn(maps) {
  const whole = maps.filter((map) => map.kind === "whole");
  return whole.length ? whole : maps;
}

/** A canvas with the heat map of the first network that has one, or null. */
export function heatMap(found) {
  const weights = found.weights.find((own) => found.heat_maps.some((map) => map.detector === own.detector));
  if (!weights || !found.file.width) return null;
  const maps = drawn(found.heat_maps.filter((map) => map.detector === weights.detector));
  const { slope, offset } = weights.calibration;
  const scale = Math.min(1, LAYER_PX / Math.max(found.file.width, found.file.height));
  const width = Math.max(1, Math.round(found.file.width * scale));
  const height = Math.max(1, Math.round(found.file.height * scale));
  const total = new Float32Array(width * height);
  const count = new Uint8Array(width * height);
  for (const map of maps) {
    const rows = axis(map.top, map.side, map.logits.length, scale, height);
    const columns = axis(map.left, map.side, map.logits[0].length, scale, width);
    for (let y = rows.first; y < rows.last; y++) {
      for (let x = columns.first; x < columns.last; x++) {
        total[y * width + x] += slope * map.logits[rows.patch[y - rows.first]][columns.patch[x - columns.first]] + offset;
        count[y * width + x] += 1;
      }
    }
  }
  const canvas = document.createElement("canvas");
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(width, height);
  for (let at = 0; at < total.length; at++) {
    const odds = count[at] ? total[at] / count[at] : 0;
    pixels.data.set(odds > 0 ? SYNTHETIC : AUTHENTIC, 4 * at);
    pixels.data[4 * at + 3] = Math.round(Math.min(Math.abs(odds) / FULL_LOG_ODDS, 1) * MAX_ALPHA * 255);
  }
  context.putImageData(pixels, 0, 0);
  return canvas;
}

function axis(start, side, n, scale, limit) {
  const first = Math.min(Math.round(start * scale), limit - 1);
  const last = Math.max(first + 1, Math.min(Math.round((start + side) * scale), limit));
  const patch = [];
  for (let at = first; at < last; at++) {
    const middle = (at + 0.5) / scale - start;
    patch.push(Math.min(n - 1, Math.max(0, Math.floor((middle * n) / side))));
  }
  return { first, last, patch };
}
