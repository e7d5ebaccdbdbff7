// Re-encodes a PNG with a palette of 256 colours, which is enough for these pages and a third of
// the size.
const [data, done] = arguments;
(async () => {
  const image = new Image();
  image.src = "data:image/png;base64," + data;
  await image.decode();
  const { width, height } = image;
  const canvas = new OffscreenCanvas(width, height).getContext("2d");
  canvas.drawImage(image, 0, 0);
  const pixels = new Uint32Array(canvas.getImageData(0, 0, width, height).data.buffer);

  const counts = new Map();
  for (const pixel of pixels) counts.set(pixel, (counts.get(pixel) || 0) + 1);
  const colours = [...counts.keys()].sort((one, two) => counts.get(two) - counts.get(one));
  const parts = (colour) => [colour & 255, colour >> 8 & 255, colour >> 16 & 255];
  const palette = colours.slice(0, 256).map(parts);
  const indices = new Map();
  for (const colour of colours) {
    const wanted = parts(colour);
    const distance = (known) =>
      known.reduce((sum, value, part) => sum + (value - wanted[part]) ** 2, 0);
    let best = 0;
    for (let index = 1; index < palette.length; index++)
      if (distance(palette[index]) < distance(palette[best])) best = index;
    indices.set(colour, best);
  }
  const rows = new Uint8Array(height * (width + 1)); // Each row begins with its filter: none.
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++)
      rows[y * (width + 1) + 1 + x] = indices.get(pixels[y * width + x]);
  const packed = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));

  const crc = (bytes) => {
    let sum = -1;
    for (const byte of bytes) {
      sum ^= byte;
      for (let bit = 0; bit < 8; bit++) sum = sum & 1 ? sum >>> 1 ^ 0xedb88320 : sum >>> 1;
    }
    return sum ^ -1;
  };
  const number = (value) => [value >>> 24, value >>> 16 & 255, value >>> 8 & 255, value & 255];
  const chunk = (name, bytes) => {
    const body = new Uint8Array([...name].map((letter) => letter.charCodeAt(0)).concat([...bytes]));
    return [new Uint8Array(number(bytes.length)), body, new Uint8Array(number(crc(body)))];
  };
  const png = new Blob([
    new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]),
    ...chunk("IHDR", [...number(width), ...number(height), 8, 3, 0, 0, 0]),
    ...chunk("PLTE", palette.flat()),
    ...chunk("IDAT", new Uint8Array(await new Response(packed).arrayBuffer())),
    ...chunk("IEND", []),
  ]);
  const reader = new FileReader();
  reader.onload = () => done(reader.result.split(",")[1]);
  reader.readAsDataURL(png);
})();
