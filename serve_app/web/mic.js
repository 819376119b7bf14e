// Runs beside the page: passes the microphone's sound on, in blocks as they come.

class Mic extends AudioWorkletProcessor {
  process([[block]]) {
    if (block) this.port.postMessage(block.slice());
    return true;
  }
}

registerProcessor("mic", Mic);
