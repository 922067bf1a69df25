// New nodes are wide enough for their titles: Nodes 2.0 cuts longer ones, between its arrow and the pack's badge.
import { app } from "../../scripts/app.js";

const BESIDE = 110; // pixels, of the title bar around the title
const canvas = document.createElement("canvas").getContext("2d");
canvas.font = "bold 14px Inter, Arial, sans-serif";

app.registerExtension({
  name: "EI2.Titles",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("EI2_")) return;
    const width = Math.ceil(canvas.measureText(node.title).width) + BESIDE;
    if (node.size[0] < width) node.setSize([width, node.size[1]]); // a saved node gets its saved size afterwards
  },
});
