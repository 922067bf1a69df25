// Newer front ends take the text that a node shows while it runs away when the job ends. EI2's nodes keep theirs.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

const KEPT = "EI2 shown text", FRONT_ENDS = "$$node-text-preview";
const AFTER_CLEARING = 200; // ms behind a job's end
const told = new Map(); // the last text of every node, by its id

const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

function ours(id) {
  const node = app.graph?.getNodeById(id);
  return node?.comfyClass?.startsWith("EI2_") ? node : null;
}

function show(node, text) {
  let widget = widgetOf(node, KEPT);
  if (!widget) {
    widget = ComfyWidgets.STRING(node, KEPT, ["STRING", { multiline: true }], app).widget;
    widget.serialize = false; // in the workflow's file
    widget.options.serialize = false; // in the prompt
    widget.inputEl.readOnly = true;
  }
  widget.value = text;
  app.canvas?.setDirty(true, true);
}

function hide(node) {
  const widget = widgetOf(node, KEPT);
  if (!widget) return;
  widget.onRemove?.();
  node.widgets.splice(node.widgets.indexOf(widget), 1);
}

function keepWhatIsGone() {
  for (const [id, text] of told) {
    const node = ours(id);
    if (node && !widgetOf(node, FRONT_ENDS)) show(node, text);
  }
}

app.registerExtension({
  name: "EI2.ShownText",
  setup() {
    api.addEventListener("progress_text", ({ detail }) => {
      const id = String(detail.nodeId), node = ours(id);
      if (!node) return;
      told.set(id, detail.text);
      hide(node); // while a job runs, the front end shows it
    });
    for (const end of ["execution_success", "execution_error", "execution_interrupted"])
      api.addEventListener(end, () => setTimeout(keepWhatIsGone, AFTER_CLEARING));
  },
  afterConfigureGraph: () => told.clear(), // another workflow has other nodes
});
