const embedcore = require('embedcore');

import('./work.mjs').then(({ work }) => work(embedcore));
