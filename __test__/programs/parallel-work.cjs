// As TypeScript compiles an ES module to CommonJS.
Object.defineProperty(exports, '__esModule', { value: true });
exports.default = (n) => n + 1;
exports.named = (n) => n + 2;
