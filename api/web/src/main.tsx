// Renders the page into the document.

import { render } from "preact";
import { App } from "./view/App";

const root = document.getElementById("app");
if (root !== null) {
  render(<App />, root);
}
