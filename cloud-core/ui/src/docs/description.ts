// What of an OpenAPI document the page shows. Pure.

export interface Parameter {
  name: string;
  in: string;
  required: boolean;
  description: string;
  example: string;
}

export interface Operation {
  method: string;
  path: string;
  tag: string;
  summary: string;
  parameters: Parameter[];
  /** Status and the name of what comes with it. */
  responses: [string, string][];
  hasBody: boolean;
}

interface RawParameter {
  name: string;
  in: string;
  required?: boolean;
  description?: string;
  example?: unknown;
}

interface RawOperation {
  tags?: string[];
  summary?: string;
  description?: string;
  parameters?: RawParameter[];
  requestBody?: unknown;
  responses?: Record<string, { content?: Record<string, { schema?: { $ref?: string } }> }>;
}

export interface Document {
  info: { title: string; version: string; description?: string };
  paths: Record<string, Record<string, RawOperation>>;
}

/** All operations, by tag, in the document's order within one. */
export function operations(document: Document): Map<string, Operation[]> {
  const byTag = new Map<string, Operation[]>();
  for (const [path, methods] of Object.entries(document.paths)) {
    for (const [method, raw] of Object.entries(methods)) {
      const operation = read(method.toUpperCase(), path, raw);
      byTag.set(operation.tag, [...(byTag.get(operation.tag) ?? []), operation]);
    }
  }
  return byTag;
}

function read(method: string, path: string, raw: RawOperation): Operation {
  return {
    method,
    path,
    tag: raw.tags?.[0] ?? "other",
    summary: raw.summary ?? raw.description ?? "",
    parameters: (raw.parameters ?? []).map((parameter) => ({
      name: parameter.name,
      in: parameter.in,
      required: parameter.required ?? false,
      description: parameter.description ?? "",
      example: parameter.example === undefined ? "" : String(parameter.example),
    })),
    responses: Object.entries(raw.responses ?? {}).map(([status, response]) => {
      const schema = Object.values(response.content ?? {})[0]?.schema;
      return [status, schema?.$ref?.split("/").pop() ?? ""];
    }),
    hasBody: raw.requestBody !== undefined,
  };
}

/** The address of a request with these values; those that are empty are left out. */
export function address(operation: Operation, values: Map<string, string>): string {
  let path = operation.path;
  const query = new URLSearchParams();
  for (const parameter of operation.parameters) {
    const value = values.get(parameter.name) ?? "";
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (value !== "") query.set(parameter.name, value);
  }
  const text = query.toString();
  return text === "" ? path : `${path}?${text}`;
}
