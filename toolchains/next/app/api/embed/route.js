import { OptimizedEmbeddingGenerator } from 'embedcore';

// One for all requests.
const generator = new OptimizedEmbeddingGenerator();
const ready = generator.initialize();

export async function GET(request) {
  await ready;
  const vector = await generator.embedQuery(new URL(request.url).searchParams.get('text') ?? '');
  return Response.json({ dimensions: vector.length, length: Math.hypot(...vector) });
}

export const dynamic = 'force-dynamic';
