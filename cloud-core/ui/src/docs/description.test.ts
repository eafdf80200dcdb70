import { describe, expect, it } from "vitest";
import { address, type Document, operations } from "./description";

const document: Document = {
  info: { title: "x", version: "1" },
  paths: {
    "/v1/groups/{name}": {
      get: {
        tags: ["groups"],
        summary: "A group.",
        parameters: [
          { name: "name", in: "path", required: true },
          { name: "limit", in: "query", example: 5 },
        ],
        responses: {
          "200": { content: { "application/json": { schema: { $ref: "#/components/schemas/Group" } } } },
          "404": {},
        },
      },
    },
    "/v1/groups": { put: { tags: ["groups"], requestBody: {} }, get: {} },
  },
};

describe("the description", () => {
  it("is read by tag", () => {
    const byTag = operations(document);
    expect([...byTag.keys()]).toEqual(["groups", "other"]);
    const [one, put] = byTag.get("groups") ?? [];
    expect(one?.responses).toEqual([
      ["200", "Group"],
      ["404", ""],
    ]);
    expect(one?.parameters[1]?.example).toBe("5");
    expect([put?.method, put?.hasBody]).toEqual(["PUT", true]);
  });

  it("gives addresses", () => {
    const operation = operations(document).get("groups")?.[0];
    if (!operation) throw new Error("no operation");
    const values = new Map([
      ["name", "hall 2/a"],
      ["limit", ""],
    ]);
    expect(address(operation, values)).toBe("/v1/groups/hall%202%2Fa");
    values.set("limit", "7");
    expect(address(operation, values)).toBe("/v1/groups/hall%202%2Fa?limit=7");
  });
});
