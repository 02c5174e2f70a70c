// Creates and finds nodes. Text becomes text nodes only, so that no data of the server can become markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

const filled = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

/** Creates an HTML element with attributes and children; text becomes a text node. */
export const element = (name, attributes = {}, ...children) =>
  filled(document.createElement(name), attributes, children);

/** Creates an SVG element. */
export const svgElement = (name, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, name), attributes, children);

/** Sets a node's text only if it changed, so that a screen reader announces each change once. */
export const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

/** Shows a problem in a node, and hides the node if there is none. */
export const setProblem = (node, text) => {
  setText(node, text);
  node.hidden = !text;
};
