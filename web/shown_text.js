// What EI2's nodes say of their run: a box at the node's end, in every front end and both of its renderers. The front
// end has a box of its own only while a job runs, only in the graph that is open, and newer ones delete it at the end.
import { app } from "../../scripts/app.js";
import { api } from "../../scripts/api.js";

const OURS = "EI2 shown text", FRONT_ENDS = "$$node-text-preview";
const LINE = 15, MOST_LINES = 8, LETTER = 5.6, EDGES = 32; // pixels, of the box's text and around it
const STYLE = {
  boxSizing: "border-box", width: "100%", padding: "5px 8px", overflowY: "auto", whiteSpace: "pre-wrap",
  overflowWrap: "break-word", userSelect: "text", font: `10px/${LINE}px sans-serif`, borderRadius: "6px",
  color: "var(--input-text, #ddd)", background: "var(--comfy-input-bg, #222)",
};

const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);

function linesOf(text, width) {
  const perLine = Math.max(10, (width - EDGES) / LETTER);
  return text.split("\n").reduce((lines, line) => lines + Math.max(1, Math.ceil(line.length / perLine)), 0);
}

function addBox(node) {
  const element = document.createElement("div");
  Object.assign(element.style, STYLE);
  element.dataset.ei2Text = "";
  const least = () => LINE * Math.min(MOST_LINES, linesOf(element.textContent, node.size[0])) + 10;
  const widget = node.addDOMWidget(OURS, "EI2_TEXT", element, {
    serialize: false, // in the prompt
    hideOnZoom: false,
    getMinHeight: () => least() + 20, // in the classic renderer it has a margin of 10 pixels
    getValue: () => element.textContent,
    setValue: (text) => {
      element.textContent = text;
      element.style.minHeight = element.style.maxHeight = `${least()}px`;
    },
  });
  widget.serialize = false; // in the workflow's file
  return widget;
}

// An empty text removes the box.
function show(node, text) {
  if (!text) return removeBox(node, OURS);
  (widgetOf(node, OURS) ?? addBox(node)).value = text;
  const [width, height] = node.computeSize();
  if (node.size[1] < height) node.setSize([Math.max(width, node.size[0]), height]);
  node.graph?.setDirtyCanvas(true, true);
}

function removeBox(node, name) {
  const widget = widgetOf(node, name);
  if (!widget) return;
  if (node.removeWidget) return node.removeWidget(widget);
  widget.onRemove?.();
  node.widgets.splice(node.widgets.indexOf(widget), 1);
}

// A job's events name nodes of the workflow from which it was queued; the open one may have others of the same number.
const origins = new Map(); // by the job's id: its workflow, and the id of its graph
const ENDS = ["execution_success", "execution_error", "execution_interrupted"];
let running = null;

const openGraph = () => app.rootGraph ?? app.graph;
const openWorkflow = () => app.extensionManager?.workflow?.activeWorkflow;
const isOpen = (job) => !origins.has(job) || origins.get(job).workflow === openWorkflow();

function watchJobs() {
  const queue = api.queuePrompt;
  api.queuePrompt = async function () {
    const origin = { workflow: openWorkflow(), graph: openGraph().id };
    const answer = await queue.apply(this, arguments);
    if (answer?.prompt_id) origins.set(answer.prompt_id, origin);
    return answer;
  };
  api.addEventListener("execution_start", ({ detail }) => { running = detail.prompt_id; });
  for (const end of ENDS) api.addEventListener(end, ({ detail }) => origins.delete(detail.prompt_id));
}

// "5:3" is node 3 in the subgraph of node 5.
function nodeOf(executionId) {
  let graph = openGraph(), node = null;
  for (const id of String(executionId).split(":")) {
    node = graph?.getNodeById(id);
    graph = node?.subgraph;
  }
  return node?.comfyClass?.startsWith("EI2_") ? node : null;
}

// What nodes said last, by their graph's id and their own: whenever a graph is loaded, by undo too, its nodes are new.
const said = new Map();

function say(job, executionId, text) {
  const graph = origins.get(job)?.graph ?? openGraph().id;
  if (!said.has(graph)) said.set(graph, new Map());
  said.get(graph).set(String(executionId), text);
  const node = isOpen(job) && nodeOf(executionId);
  if (node) show(node, text);
}

app.registerExtension({
  name: "EI2.ShownText",
  setup() {
    watchJobs();
    api.addEventListener("executing", ({ detail }) => {
      if (detail != null) say(running, detail, ""); // what it said was of an earlier run
    });
    api.addEventListener("executed", ({ detail }) => {
      const text = detail.output?.text;
      if (text) say(detail.prompt_id, detail.display_node ?? detail.node, [text].flat().join("\n"));
    });
    api.addEventListener("progress_text", ({ detail }) => {
      say(detail.prompt_id ?? running, detail.nodeId, detail.text);
      const node = nodeOf(detail.nodeId);
      if (node) setTimeout(() => removeBox(node, FRONT_ENDS)); // its own listener may come later
    });
  },
  afterConfigureGraph() {
    for (const [executionId, text] of said.get(openGraph().id) ?? []) {
      const node = nodeOf(executionId);
      if (node) show(node, text);
    }
  },
});
