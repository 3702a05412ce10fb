// The request that was just made, to copy: as curl, Python's standard library, and tritonclient.

import { inPath } from "./format.js";

const KEY = "PARALLEL_INFER_KEY"; // the environment variable that snippets take a key from

const shell = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
const python = (text) => JSON.stringify(text);

// `path` and `query` are those of the request, `file` the picture's name, `locked` whether a key is asked for.
export function snippets({ model, query, file, locked }) {
  const url = `${location.origin}/infer/${inPath(model)}${query && `?${query}`}`;
  return { curl: curl(url, file, locked), Python: plain(url, file, locked), tritonclient: triton(model, query, file, locked) };
}

function curl(url, file, locked) {
  const lines = ["curl -sS", `  --data-binary ${shell(`@${file}`)}`];
  if (locked) lines.push(`  -H "Authorization: Bearer $${KEY}"`);
  return [...lines, `  ${shell(url)}`].join(" \\\n");
}

function plain(url, file, locked) {
  const header = locked ? `{"Authorization": "Bearer " + os.environ[${python(KEY)}]}` : "{}";
  return `import json${locked ? "\nimport os" : ""}
import urllib.request
from pathlib import Path

picture = Path(${python(file)}).read_bytes()
request = urllib.request.Request(
    ${python(url)},
    data=picture,
    headers=${header},
)
with urllib.request.urlopen(request) as response:
    answer = json.load(response)
print(json.dumps(answer, indent=2))
`;
}

function triton(model, query, file, locked) {
  const options = [...new URLSearchParams(query)].map(([name, value]) => `${python(name)}: ${value !== "" && Number.isFinite(Number(value)) ? value : python(value)}`);
  const more = [
    options.length && `, parameters={${options.join(", ")}}`,
    locked && `,\n    headers={"Authorization": "Bearer " + os.environ[${python(KEY)}]}`,
  ];
  return `import json${locked ? "\nimport os" : ""}
from pathlib import Path

import numpy as np
import tritonclient.http as triton

picture = Path(${python(file)}).read_bytes()
image = triton.InferInput("image", [1, 1], "BYTES")
image.set_data_from_numpy(np.array([[picture]], object))
client = triton.InferenceServerClient(${python(location.host)}${location.protocol === "https:" ? ", ssl=True" : ""})
result = client.infer(
    ${python(`${model}.picture`)}, [image]${more.filter(Boolean).join("")}
)
print(json.dumps(json.loads(result.as_numpy("answer").item()), indent=2))
`;
}
