// The player that the editor shows below a video is no input. The editor sends it as one, an empty text, as soon as the
// video is there: a second run would then seem to have another input, load the clip and learn it again, and save
// unchanged videos as new files.
import { app } from "../../scripts/app.js";

const PLAYER = "video-preview", NODES = ["EI2_LoadVideo", "SaveVideo"];

app.registerExtension({
  name: "EI2.Players",
  beforeRegisterNodeDef(nodeType, { name }) {
    if (!NODES.includes(name)) return;
    const before = nodeType.prototype.addDOMWidget;
    nodeType.prototype.addDOMWidget = function (widgetName) {
      const widget = before.apply(this, arguments);
      if (widgetName === PLAYER) widget.options.serialize = false;
      return widget;
    };
  },
});
