// node render_glb.mjs CHROMIUM MESH.glb OUT.png '{"size": 256, "matrix": [16 numbers], "fovY": 40, "show": "colour"}'
// node render_glb.mjs CHROMIUM PAGE.html OUT.png '{"size": 256}'
//
// Draws a GLB with three.js, unlit, from a given camera; or photographs a page as it is.
import { createReadStream, existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import puppeteer from "puppeteer-core";

const [executablePath, file, out, settings] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const options = JSON.parse(settings);
const types = { html: "text/html", js: "text/javascript", glb: "model/gltf-binary" };

const server = createServer(({ url }, response) => {
  const path = url === "/mesh.glb" || url === "/page.html" ? file : join(here, url);
  if (!existsSync(path)) return response.writeHead(404).end();
  response.writeHead(200, { "content-type": types[path.split(".").pop()] ?? "application/octet-stream" });
  createReadStream(path).pipe(response);
}).listen(0, "127.0.0.1");
await new Promise((listening) => server.once("listening", listening));

// SwiftShader draws WebGL on a machine without a GPU.
const args = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"];
const browser = await puppeteer.launch({ executablePath, args, protocolTimeout: 300_000 });
try {
  const page = await browser.newPage();
  page.setDefaultTimeout(300_000);
  page.on("pageerror", (error) => console.error(String(error)));
  await page.setViewport({ width: options.size, height: options.size });
  const origin = `http://127.0.0.1:${server.address().port}`;
  if (file.endsWith(".html")) {
    await page.goto(`${origin}/page.html`, { waitUntil: "load" });
    await new Promise((drawn) => setTimeout(drawn, options.wait ?? 5000));
    await page.screenshot({ path: out });
  } else {
    await page.goto(`${origin}/render_glb.html`, { waitUntil: "load" });
    await page.waitForFunction("window.ready");
    const picture = await page.evaluate((given) => window.renderGlb(given), options);
    await writeFile(out, Buffer.from(picture.split(",")[1], "base64"));
  }
} finally {
  await browser.close();
  server.close();
}
