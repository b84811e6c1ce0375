export const handler = {
  handle(_delivery) {
    return { tag: "ack", val: undefined };
  },
};
