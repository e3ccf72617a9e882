// Fields of JSON: digits, order, and what is no object.

import { expect, test } from "vitest";
import { jsonFields } from "./json_fields";

const shown = (text: string) => jsonFields(text).map(({ name, json }) => `${name}=${json}`);

test("numbers keep their digits, and fields their order", () => {
  const text = '{"id":1610521604143693812,"n":1.0,"z":1e400,"10":-0.10,"2": 2 ,"id":9007199254740993}';
  const expected = ["id=1610521604143693812", "n=1.0", "z=1e400", "10=-0.10", "2=2", "id=9007199254740993"];
  expect(shown(text)).toEqual(expected);
});

test("nested values are compact, with their digits and without needless escapes", () => {
  const text = '{ "a" : { "b" : [ 1.50 , "x : \\u00e9 , }" , { } ] , "c":null } ,\n"d":[[],[12345678901234567890]]}';
  expect(shown(text)).toEqual(['a={"b":[1.50,"x : é , }",{}],"c":null}', "d=[[],[12345678901234567890]]"]);
});

test("only strings have a text", () => {
  const texts = jsonFields('{"a":"x\\"y\\n","b":["c"],"d":1,"":"","e":{"f":"g"}}').map(({ text }) => text);
  expect(texts).toEqual(['x"y\n', null, null, "", null]);
});

test("what is no object has no fields", () => {
  for (const text of ["", "1", "null", '"a"', "[1]", "{", '{"a":1}x', "{a:1}"]) {
    expect(jsonFields(text)).toEqual([]);
  }
  expect(jsonFields("{}")).toEqual([]);
});
