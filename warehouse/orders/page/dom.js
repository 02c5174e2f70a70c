// Builds and finds nodes. Text goes in as text nodes only, so that nothing a server says can become markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

const filled = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
};

/** Makes an HTML element with attributes and children; a child that is text becomes a text node. */
export const element = (name, attributes = {}, ...children) =>
  filled(document.createElement(name), attributes, children);

/** Makes an SVG element. */
export const shape = (name, attributes = {}, ...children) =>
  filled(document.createElementNS(SVG, name), attributes, children);

/** Sets a node's text only if it changed, so that a live region speaks once for each change. */
export const setText = (node, text) => {
  if (node.textContent !== text) node.textContent = text;
};

/** Says what is wrong in a node that is hidden while nothing is. */
export const setProblem = (node, text) => {
  setText(node, text);
  node.hidden = !text;
};
