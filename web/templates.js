// The template browser names a pack's workflows by their files, and lists them as the disk does. Here they get readable
// titles, numbered by use. The server keeps its file names: only what the browser's two requests say is translated.
import { api } from "../../scripts/api.js";

const TITLES = {
  quickstart: "Quickstart",
  quickstart_full: "Quickstart, every step",
  key_frame: "Carry a key frame",
  ei2_control_blend: "Attention control",
  masked_edit: "Edit inside a mask",
  sd15_object_swap: "Swap the object (SD 1.5)",
  sd15_restyle: "Restyle (SD 1.5)",
  sd15_depth: "Depth ControlNet (SD 1.5)",
  sdxl_object_swap: "Swap the object (SDXL)",
  subject_mask: "Edit the subject only",
  long_clip: "Long clip",
  learn_and_keep: "Learn and keep",
  load_and_edit: "Load and edit",
  video_p2p: "Video-P2P",
  vid2vid_zero: "Vid2Vid-zero",
  compare_tune_a_video: "Compare with Tune-A-Video",
};
const PACK = decodeURIComponent(import.meta.url.split("/").at(-2)); // the pack's folder: its name for the server, too
const ROUTE = `/workflow_templates/${PACK}/`;
const files = Object.keys(TITLES);
const titles = files.map((file, i) => `${String(i + 1).padStart(2, "0")} ${TITLES[file]} - EI² video edit`);

const titled = (names) => [
  ...titles.filter((_, i) => names.includes(files[i])),
  ...names.filter((name) => !files.includes(name)),
];

// "/workflow_templates/EI2/<title>.json"; for pictures, the browser adds the ending afterwards.
function withFile(route) {
  if (!String(route).startsWith(ROUTE)) return route;
  const name = decodeURIComponent(route.slice(ROUTE.length));
  const i = titles.findIndex((title) => name.startsWith(title));
  return i < 0 ? route : ROUTE + files[i] + name.slice(titles[i].length);
}

const { getWorkflowTemplates, apiURL } = api;
if (getWorkflowTemplates && apiURL) {
  api.apiURL = function (route) {
    return apiURL.call(this, withFile(route));
  };
  api.getWorkflowTemplates = async function () {
    const packs = await getWorkflowTemplates.call(this);
    return PACK in packs ? { ...packs, [PACK]: titled(packs[PACK]) } : packs;
  };
}
