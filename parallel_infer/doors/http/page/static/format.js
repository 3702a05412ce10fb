// Numbers and names as the page writes them.

export const fixed = (value, digits = 1) => (Number.isFinite(value) ? value.toFixed(digits) : "–");

export function milliseconds(value) {
  if (!Number.isFinite(value)) return "–";
  return value < 10 ? value.toFixed(1) : value.toFixed(0);
}

export function bytes(count) {
  const units = ["B", "KB", "MB", "GB", "TB"];
  let power = 0;
  while (count >= 1024 && power < units.length - 1) {
    count /= 1024;
    power += 1;
  }
  return `${count < 10 && power ? count.toFixed(1) : Math.round(count)} ${units[power]}`;
}

export function duration(seconds) {
  if (seconds < 90) return `${Math.floor(seconds)} s`;
  if (seconds < 5400) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

// A model that serves the unchanged file of another one to the doors.
export const shown = (name) => (name.endsWith("@file") ? `${name.slice(0, -5)} (file)` : name);

export const plural = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;

// The colour of a class: steps of the golden ratio spread hues evenly, three tones tell apart what comes close.
export function color(number) {
  const hue = (number * 0.61803398875) % 1;
  const [saturation, value] = [[0.85, 1], [0.55, 1], [0.9, 0.75]][Math.floor(number / 5) % 3];
  const channel = (shift) => {
    const k = (shift + hue * 6) % 6;
    return Math.round(255 * (value - value * saturation * Math.max(0, Math.min(k, 4 - k, 1))));
  };
  return [channel(5), channel(3), channel(1)];
}

export const css = ([red, green, blue]) => `rgb(${red} ${green} ${blue})`;

// Black or white, whichever reads better on a colour (WCAG's relative luminance, without the gamma).
export const ink = ([red, green, blue]) => (0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#0c0f14" : "#ffffff");

// A model's name, or those of a fan, in a path; the sign between them may stand there as it is.
export const inPath = (name) => encodeURIComponent(name).replaceAll("%2B", "+");
