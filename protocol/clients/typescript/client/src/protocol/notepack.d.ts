declare module "notepack.io/browser/decode.js" {
  export default function decode(bytes: ArrayBuffer | Uint8Array): unknown;
}

declare module "notepack.io/browser/encode.js" {
  export default function encode(value: unknown): ArrayBuffer;
}
