// The built website on 127.0.0.1, and the list of its pages.
import { createServer } from "node:http";
import { readFile, readdir } from "node:fs/promises";
import { extname, join, normalize, relative, sep } from "node:path";
import { fileURLToPath } from "node:url";

export const HTML = fileURLToPath(new URL("../../book/_build/html", import.meta.url));

const TYPES = {
  ".css": "text/css", ".html": "text/html; charset=utf-8", ".ipynb": "application/json", ".js": "text/javascript",
  ".json": "application/json", ".png": "image/png", ".svg": "image/svg+xml", ".woff2": "font/woff2",
};

const REDIRECT = "index.html"; // of the site's root: it shows nothing and leads to book/index.html

/** Names of all pages, relative to the site, sorted. */
export async function pages() {
  const entries = await readdir(HTML, { recursive: true, withFileTypes: true }).catch(() => []);
  const found = entries
    .filter((entry) => entry.isFile() && entry.name.endsWith(".html"))
    .map((entry) => relative(HTML, join(entry.parentPath, entry.name)).split(sep).join("/"))
    .filter((name) => !name.startsWith("_static/") && name !== REDIRECT);
  if (!found.length) throw new Error("no pages in book/_build/html: run `make book` first");
  return found.sort();
}

/** Serve the site on a free port while `use(address)` runs; return what it returns. */
export async function withServer(use) {
  const server = createServer(async (request, response) => {
    const path = normalize(join(HTML, decodeURIComponent(new URL(request.url, "http://127.0.0.1").pathname)));
    try {
      if (!path.startsWith(HTML)) throw new Error("outside the site");
      const body = await readFile(path.endsWith(sep) ? join(path, "index.html") : path);
      response.writeHead(200, { "content-type": TYPES[extname(path)] ?? "application/octet-stream" }).end(body);
    } catch {
      response.writeHead(404, { "content-type": "text/plain" }).end("not found");
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    return await use(`http://127.0.0.1:${server.address().port}`);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}
