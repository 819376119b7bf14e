// Requests to the service: the caller's key on each of them, refusals as errors that can be shown.

const SLOT = "lipsync-key"; // in sessionStorage: gone when the tab closes
const ENDS = new Set(["completed", "failed", "cancelled"]);
const WAIT = { first: 500, most: 5000 }; // milliseconds between tries to reach a server that is away

export class Refusal extends Error {
  constructor(message, status = 0, about = {}) {
    super(message);
    Object.assign(this, { status, code: about.code ?? "", param: about.param ?? "", request: about.request ?? "" });
  }
}

export const getKey = () => sessionStorage.getItem(SLOT) ?? "";
export const setKey = (key) => (key ? sessionStorage.setItem(SLOT, key) : sessionStorage.removeItem(SLOT));

const authorization = () => (getKey() ? { Authorization: `Bearer ${getKey()}` } : {});

function refusalOf(status, text, request) {
  let error = {};
  try {
    error = JSON.parse(text).error ?? {};
  } catch {
    // a proxy's page, say: the status is all there is
  }
  if (status === 401) window.dispatchEvent(new CustomEvent("key-wanted", { detail: Boolean(getKey()) }));
  const words = error.message ?? `The server answered ${status}. Try again, or ask its operator.`;
  return new Refusal(words, status, { ...error, request });
}

export async function ask(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...authorization(), ...options.headers } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server cannot be reached. Is it running?");
  }
  if (!answer.ok) throw refusalOf(answer.status, await answer.text(), answer.headers.get("x-request-id"));
  return answer;
}

export const askJson = async (path, options) => (await ask(path, options)).json();

/** Send a form. `onSent(bytes, total)` is told of the way. Gives `{ done, stop }`. */
export function upload(path, form, headers, onSent) {
  const request = new XMLHttpRequest(); // fetch does not tell how much of a body is sent
  const done = new Promise((resolve, reject) => {
    request.upload.onprogress = (event) => onSent(event.loaded, event.total);
    request.onload = () => {
      if (request.status === 200) resolve(JSON.parse(request.responseText));
      else reject(refusalOf(request.status, request.responseText, request.getResponseHeader("x-request-id")));
    };
    request.onerror = () => reject(new Refusal("The connection broke while sending. The file may be too large, or the server away."));
    request.onabort = () => reject(new DOMException("stopped by you", "AbortError"));
    request.open("POST", path);
    for (const [name, value] of Object.entries({ ...authorization(), ...headers })) request.setRequestHeader(name, value);
    request.send(form);
  });
  return { done, stop: () => request.abort() };
}

/** Follow a job to its end and give its last state. Joins again when the connection breaks. */
export async function follow(id, onState, signal) {
  let wait = WAIT.first;
  for (;;) {
    try {
      // EventSource cannot carry a key, so the stream is read here
      const answer = await ask(`/v1/videos/${id}/events`, { signal, headers: { Accept: "text/event-stream" } });
      for await (const { name, data } of events(answer.body)) {
        wait = WAIT.first;
        const state = JSON.parse(data);
        if (ENDS.has(name)) return state;
        onState(state);
      }
    } catch (error) {
      if (error.name === "AbortError") throw error;
      if (error.status && error.status < 500) throw error;
      onState({ away: true });
    }
    await new Promise((resolve) => setTimeout(resolve, wait));
    if (signal.aborted) throw new DOMException("no longer of interest", "AbortError");
    wait = Math.min(WAIT.most, 2 * wait);
  }
}

async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = Object.fromEntries(block.split("\n").map((line) => [line.split(":", 1)[0], line.slice(line.indexOf(":") + 2)]));
      if (fields.event && fields.data) yield { name: fields.event, data: fields.data };
    }
  }
}
