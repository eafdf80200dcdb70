import { render } from "preact";
import "uplot/dist/uPlot.min.css";
import "./styles/index.css";
import { App } from "./app";
import { startSession } from "./session/session";
import { startTheme } from "./shell/theme";

startTheme();
startSession();
const root = document.getElementById("app");
if (root) render(<App />, root);
