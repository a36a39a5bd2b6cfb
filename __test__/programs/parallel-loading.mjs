// A module that is never loaded.
setInterval(() => {}, 1000);
await new Promise(() => {});

export default (item) => item;
