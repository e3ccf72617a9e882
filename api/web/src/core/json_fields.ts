// The fields of a JSON object as they are written: in their order, and each number with its digits.
//
// JSON.parse would round numbers beyond 2^53, drop the `.0` of `1.0`, and put fields whose names
// are whole numbers first.

/** A field of an object: its name, its value as compact JSON, and its text if it is a string. */
export interface JsonField {
  name: string;
  json: string;
  text: string | null;
}

/** The fields of the object that `text` is, with repeated names; none if it is no object. */
export function jsonFields(text: string): JsonField[] {
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      return [];
    }
  } catch {
    return [];
  }
  // From here on the text is valid, so a token can be told by its first character.
  const fields: JsonField[] = [];
  TOKEN.lastIndex = text.indexOf("{") + 1;
  for (let token = nextToken(text); token !== "}"; token = nextToken(text)) {
    if (token === ",") {
      continue;
    }
    const name = stringOf(token);
    TOKEN.exec(text); // The colon.
    const first = nextToken(text);
    fields.push(first.startsWith('"') ? textField(name, first) : { name, json: compact(text, first), text: null });
  }
  return fields;
}

/** A string, a punctuation character, or a number or literal. White space lies between them. */
const TOKEN = /"(?:[^"\\]|\\.)*"|[{}[\]:,]|[^\s"{}[\]:,]+/g;

function nextToken(text: string): string {
  return TOKEN.exec(text)?.[0] ?? "}";
}

function textField(name: string, token: string): JsonField {
  const text = stringOf(token);
  return { name, json: withoutEscapes(token, text), text };
}

/** The value that begins with this token, without white space. */
function compact(text: string, first: string): string {
  let json = "";
  let depth = 0;
  for (let token = first; ; token = nextToken(text)) {
    json += token.startsWith('"') ? withoutEscapes(token, stringOf(token)) : token;
    depth += Number(token === "{" || token === "[") - Number(token === "}" || token === "]");
    if (depth <= 0) {
      return json;
    }
  }
}

function stringOf(token: string): string {
  return token.includes("\\") ? (JSON.parse(token) as string) : token.slice(1, -1);
}

/** The token of a string with no more escapes than it needs. */
function withoutEscapes(token: string, text: string): string {
  return token.includes("\\") ? JSON.stringify(text) : token;
}
