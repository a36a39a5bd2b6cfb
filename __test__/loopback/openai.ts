// The interface of OpenAI, as its reference describes it: chat completions, whole and as server-sent events.

import type { Api, Reply } from './server';

export interface OpenAiSettings {
  models?: string[];
  /** Refuses who does not bring this key. */
  apiKey?: string;
  answer?: (prompt: string) => string;
}

const refusal = (status: number, message: string, code: string): Reply => ({ status, json: { error: { message, type: 'invalid_request_error', param: null, code } } });

export function openai({ models = ['gpt-4o-mini'], apiKey, answer = (prompt) => `an answer to ${prompt.length} characters` }: OpenAiSettings = {}): Api {
  return ({ method, path, headers, json }) => {
    if (!path.startsWith('/v1/')) return undefined;
    const given = headers.authorization?.replace(/^Bearer /, '') ?? '';
    if (apiKey !== undefined && given !== apiKey) {
      return refusal(401, `Incorrect API key provided: ${given}. You can find your API key at https://platform.openai.com/account/api-keys.`, 'invalid_api_key');
    }
    if (method === 'GET' && path === '/v1/models') return { json: { object: 'list', data: models.map((id) => ({ id, object: 'model', created: 1, owned_by: 'loopback' })) } };
    if (method !== 'POST' || path !== '/v1/chat/completions') return undefined;
    if (!models.includes(json?.model)) return refusal(404, `The model \`${json?.model}\` does not exist or you do not have access to it.`, 'model_not_found');
    const text = answer(json.messages.at(-1).content);
    const head = { id: 'chatcmpl-1', created: 1_700_000_000, model: json.model };
    if (!json.stream) {
      const choice = { index: 0, message: { role: 'assistant', content: text, refusal: null }, logprobs: null, finish_reason: 'stop' };
      return { json: { ...head, object: 'chat.completion', choices: [choice], usage: { prompt_tokens: 9, completion_tokens: 5, total_tokens: 14 } } };
    }
    const chunk = (delta: object, finish_reason: string | null) => `data: ${JSON.stringify({ ...head, object: 'chat.completion.chunk', choices: [{ index: 0, delta, logprobs: null, finish_reason }] })}\n\n`;
    const words = text.match(/\S+\s*/g) ?? [];
    const events = [chunk({ role: 'assistant', content: '' }, null), ...words.map((content) => chunk({ content }, null)), chunk({}, 'stop'), 'data: [DONE]\n\n'];
    return { headers: { 'content-type': 'text/event-stream' }, body: events };
  };
}
