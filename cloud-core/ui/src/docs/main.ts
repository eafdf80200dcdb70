// The API's description as a page: every operation, its parameters and answers; what only reads
// can be tried, with the session of the dashboard.

import "../styles/base.css";
import "../styles/colours.css";
import "./docs.css";
import { address, type Document, type Operation, operations } from "./description";

/** More of an answer is not shown. */
const SHOWN_CHARS_MAX = 20_000;

type Child = Node | string;

function element(name: string, className: string, ...children: Child[]): HTMLElement {
  const made = document.createElement(name);
  if (className !== "") made.className = className;
  made.append(...children);
  return made;
}

function parameterTable(operation: Operation, inputs: Map<string, HTMLInputElement>): Child[] {
  if (operation.parameters.length === 0) return [];
  const rows = operation.parameters.map((parameter) => {
    const input = document.createElement("input");
    input.value = parameter.example;
    input.setAttribute("aria-label", parameter.name);
    inputs.set(parameter.name, input);
    const mark = parameter.required ? " (needed)" : "";
    return element(
      "tr",
      "",
      element("td", "", element("code", "", parameter.name), mark),
      element("td", "", parameter.description),
      element("td", "", operation.method === "GET" ? input : ""),
    );
  });
  return [element("table", "docs-parameters", ...rows)];
}

function trial(operation: Operation, inputs: Map<string, HTMLInputElement>): Child[] {
  if (operation.method !== "GET" || operation.path === "/v1/live") return [];
  const button = element("button", "docs-try", "Try it");
  const answer = element("pre", "docs-answer");
  answer.hidden = true;
  button.addEventListener("click", async () => {
    const values = new Map([...inputs].map(([name, input]) => [name, input.value.trim()]));
    const path = address(operation, values);
    answer.hidden = false;
    answer.textContent = `GET ${path}\n…`;
    try {
      const response = await fetch(path);
      const text = await response.text();
      const hint = response.status === 401 ? "\n\nSign in on the dashboard first." : "";
      answer.textContent = `GET ${path}\n${response.status}\n\n${pretty(text)}${hint}`;
    } catch (error) {
      answer.textContent = `GET ${path}\n${error}`;
    }
  });
  return [button, answer];
}

function pretty(text: string): string {
  let shown = text;
  try {
    shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // Not every answer is JSON.
  }
  return shown.length > SHOWN_CHARS_MAX ? `${shown.slice(0, SHOWN_CHARS_MAX)}\n…` : shown;
}

function section(operation: Operation): HTMLElement {
  const inputs = new Map<string, HTMLInputElement>();
  const answers = operation.responses.map(([status, schema]) => `${status} ${schema}`.trim()).join(" · ");
  return element(
    "details",
    "docs-operation",
    element(
      "summary",
      "",
      element("span", `docs-method docs-${operation.method.toLowerCase()}`, operation.method),
      element("code", "", operation.path),
      element("span", "docs-summary", operation.summary),
    ),
    ...parameterTable(operation, inputs),
    element("p", "docs-responses", answers),
    ...trial(operation, inputs),
  );
}

async function show(root: HTMLElement): Promise<void> {
  const response = await fetch("/v1/openapi.json");
  if (!response.ok) throw new Error(`/v1/openapi.json: ${response.status}`);
  const description = (await response.json()) as Document;
  const link = document.createElement("a");
  link.href = "/v1/openapi.json";
  link.textContent = "The whole description (OpenAPI)";
  root.replaceChildren(
    element("h1", "", `${description.info.title} API`),
    element("p", "", description.info.description ?? "", " ", link),
  );
  for (const [tag, of] of operations(description)) {
    root.append(element("h2", "", tag), ...of.map(section));
  }
}

const root = document.getElementById("docs");
if (root) {
  show(root).catch((error) => {
    root.textContent = `The description can't be loaded: ${error}. Reload the page to try again.`;
  });
}
