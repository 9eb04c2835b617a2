// Captions pixels with the WebAssembly module: laconic.h, called from JavaScript. Knows no page, no photo, no network.
//
// The module allocates nothing. Whatever it reads and writes is placed in its memory here, once, behind __heap_base.

const ALIGNMENT = 64; // of whatever is placed
const PAGE = 65536; // bytes by which memory grows
const SPECIALS = 4; // words that every vocabulary begins with, and that are not said: <pad>, <unk>, <bos>, <eos>

export class Captioner {
  #native;
  #places = {};
  #end;

  /**
   * The module's bytes, the plan's, captions that the search keeps at a time, and words of one at most.
   * Throws an Error that says what is wrong with them.
   */
  static async open(module, plan, { beam, maxLength }) {
    const { instance } = await WebAssembly.instantiate(module, {});
    return new Captioner(instance.exports, plan, beam, maxLength);
  }

  constructor(native, plan, beam, maxLength) {
    this.#native = native;
    this.#end = native.__heap_base.value;
    this.beam = beam;
    const places = this.#places;
    places.plan = this.#placeBytes(plan);
    this.#refuse(native.laconic_check(places.plan, plan.length));
    this.side = native.laconic_side(places.plan);
    if (!this.side) throw new Error("it reads region features, not photos");
    this.#placeCaptions(maxLength);
    places.pixels = this.#place(this.side ** 2 * 3);
    places.images = this.#placeWords([1, places.pixels, 0, 0, 0]);
    this.workspace = native.laconic_workspace(places.plan, places.decoding, 1, 0) >>> 0;
    if (!this.workspace) throw new Error(`a beam of ${beam} and ${maxLength} words are more than it takes`);
    places.workspace = this.#place(this.workspace);
  }

  /** Captions of side x side RGB bytes, best first: [{text, score}]; a score is a log-probability. */
  caption(pixels) {
    const { plan, decoding, images, workspace, captions, scores, lengths } = this.#places;
    this.#bytes(this.#places.pixels, this.side ** 2 * 3).set(pixels);
    this.#refuse(this.#native.laconic_caption(plan, decoding, images, workspace, this.workspace, captions, 0));
    const memory = new DataView(this.#native.memory.buffer);
    return Array.from({ length: this.beam }, (_, slot) => ({
      length: memory.getUint32(lengths + 4 * slot, true),
      score: memory.getFloat64(scores + 8 * slot, true),
      text: this.#text(slot, memory.getUint32(lengths + 4 * slot, true)),
    })).filter(({ length }) => length); // there may be fewer captions than a search keeps
  }

  /** Room for laconic_decoding, with no length penalty and no unknown words, and for laconic_captions of one image. */
  #placeCaptions(maxLength) {
    const places = this.#places;
    this.digits = this.#native.laconic_digits(places.plan);
    this.tokens = maxLength * this.digits;
    places.decoding = this.#placeWords([this.beam, maxLength, 0, 0, 0, 0]);
    places.tokens = this.#place(4 * this.beam * this.tokens);
    const logProbs = this.#place(4 * this.beam * this.tokens);
    places.scores = this.#place(8 * this.beam);
    places.lengths = this.#place(4 * this.beam);
    places.captions = this.#placeWords([places.tokens, logProbs, places.scores, places.lengths]);
    places.size = this.#place(4);
  }

  /** The words of a caption; each is one token, or several where the plan spells words. */
  #text(slot, length) {
    const words = [];
    for (let at = 0; at + this.digits <= length; at += this.digits) {
      const number = this.#native.laconic_number(
        this.#places.plan,
        this.#places.tokens + 4 * (slot * this.tokens + at),
      );
      if (number >= SPECIALS) words.push(this.#word(number));
    }
    return words.join(" ");
  }

  #word(number) {
    const at = this.#native.laconic_word(this.#places.plan, number, this.#places.size);
    const length = new DataView(this.#native.memory.buffer).getUint32(this.#places.size, true);
    return new TextDecoder().decode(this.#bytes(at, length).slice());
  }

  /** Throws what laconic.h says of an error, unless it is none. */
  #refuse(error) {
    if (!error) return;
    const at = this.#native.laconic_message(error);
    const length = new Uint8Array(this.#native.memory.buffer, at).indexOf(0);
    throw new Error(new TextDecoder().decode(this.#bytes(at, length).slice()));
  }

  #place(bytes) {
    const at = Math.ceil(this.#end / ALIGNMENT) * ALIGNMENT;
    this.#end = at + bytes;
    const missing = this.#end - this.#native.memory.buffer.byteLength;
    if (missing > 0) this.#native.memory.grow(Math.ceil(missing / PAGE));
    return at;
  }

  #placeBytes(bytes) {
    const at = this.#place(bytes.length);
    this.#bytes(at, bytes.length).set(bytes);
    return at;
  }

  #placeWords(words) {
    return this.#placeBytes(new Uint8Array(Uint32Array.from(words).buffer));
  }

  /** A view, which lasts until memory grows. */
  #bytes(at, length) {
    return new Uint8Array(this.#native.memory.buffer, at, length);
  }
}
