/** @type {import('next').NextConfig} */
export default {
  // Left to Node.js, not bundled.
  serverExternalPackages: ['embedcore'],
  // What Next.js cannot see: the native part, and the built-in model.
  outputFileTracingIncludes: { '/api/embed': ['./node_modules/embedcore/**', './node_modules/embedcore-*/**'] },
  output: 'standalone',
  outputFileTracingRoot: import.meta.dirname,
  turbopack: { root: import.meta.dirname },
};
