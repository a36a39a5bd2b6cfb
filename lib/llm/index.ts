/** Language models elsewhere, and one network layer under them. The entry `embedcore/llm`. */
export type { RequestBody } from '../http/body';
export { HttpClient, type HttpClientOptions, type RequestOptions, type ResponseKind } from '../http/client';
export type { Fetch } from '../http/fetch';
export type { HostStats } from '../http/host';
export type { TlsSettings } from '../http/undici';
