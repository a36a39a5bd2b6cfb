import * as embedcore from 'embedcore';

import { work } from './work.mjs';

await work(embedcore);
