//! Turns of phrase: questions of another build that ask the same, made alike.
//!
//! Each turn knows one build by its little words and keeps all others, so that nothing is lost that could tell two prompts
//! apart; where a thing stands for the frame of what is asked, it becomes one.

use super::tokens::{Token, is_plain, plain_word};
use super::words::{ANY_WAY, IRREGULAR, LIGHT, QUANTITIES};

/// Makes questions alike that are of another build.
pub fn turn(tokens: &mut Vec<Token>) {
    for turn in [
        way,
        temperature,
        told_what,
        what_it_does,
        what_it_means,
        what_it_costs,
        how_much_it_is,
        workings,
        which_is,
        which_is_the,
        by_what_means,
        used_for,
        passive,
        difference,
    ] {
        if tokens.is_empty() {
            return;
        }
        if let Some(turned) = turn(tokens) {
            *tokens = turned;
        }
    }
}

fn is(token: Option<&Token>, words: &[&str]) -> bool {
    token.is_some_and(|token| is_plain(token) && words.contains(&token.word.as_str()))
}

fn words(words: &[&str]) -> Vec<Token> {
    words.iter().map(|word| plain_word(word)).collect()
}

/// A word that carries meaning.
fn means(token: Option<&Token>) -> bool {
    token.is_some_and(|token| !is_plain(token) || !LIGHT.contains(&token.word.as_str()))
}

/// Where a sentence goes on that begins at the start: behind its last token.
fn sentence(tokens: &[Token]) -> usize {
    tokens.iter().position(|token| token.ends).map_or(tokens.len(), |at| at + 1)
}

/// "what is the best way to do X", "the easiest way of doing X", "is there a way to do X" → "how do X".
fn way(tokens: &[Token]) -> Option<Vec<Token>> {
    let what_is = is(tokens.first(), &["what"]) && is(tokens.get(1), &["is", "are"]);
    let is_there = is(tokens.first(), &["is"]) && is(tokens.get(1), &["there"]);
    let told = is(tokens.first(), &["show", "explain", "give", "describe", "list"]);
    let mut at = if what_is || is_there { 2 } else { usize::from(told) };
    at += usize::from(is(tokens.get(at), &["me", "us"]));
    at += usize::from(is(tokens.get(at), &["the", "a", "an", "some"]));
    at += usize::from(is(tokens.get(at), ANY_WAY));
    let doing = |token: &Token| is_plain(token) && token.word.ends_with("ing");
    let asks = is(tokens.get(at), &["way", "ways", "method", "approach", "steps"])
        && (is(tokens.get(at + 1), &["to"])
            || is(tokens.get(at + 1), &["of", "for"]) && tokens.get(at + 2).is_some_and(doing));
    (asks && means(tokens.get(at + 2))).then(|| [&words(&["how"])[..], &tokens[at + 2..]].concat())
}

/// "(tell me, explain) what X is" → "what is X".
fn told_what(tokens: &[Token]) -> Option<Vec<Token>> {
    let end = sentence(tokens);
    let start = usize::from(is(tokens.first(), &["explain", "describe", "tell", "define"]));
    let asks = is(tokens.get(start), &["what"]) && is(tokens.get(end - 1), &["is", "are"]) && end > start + 2;
    let verb = tokens.get(end - 1)?.clone();
    asks.then(|| {
        [
            &words(&["what"])[..],
            &[Token { bound: true, ends: false, ..verb }],
            &tokens[start + 1..end - 1],
            &tokens[end..],
        ]
        .concat()
    })
}

/// "(explain) what X does", "what does X do", "what is the purpose of X", "what is X for" → "what-does X".
fn what_it_does(tokens: &[Token]) -> Option<Vec<Token>> {
    let end = sentence(tokens);
    let start = usize::from(is(tokens.first(), &["explain", "describe", "tell"]));
    if !is(tokens.get(start), &["what"]) {
        return None;
    }
    let rest = &tokens[end..];
    let asked =
        is(tokens.get(start + 1), &["do", "does", "did"]) && is(tokens.get(end - 1), &["do"]) && end > start + 3;
    if asked {
        // "in a cell" may follow.
        return Some([&words(&["what-does"])[..], &tokens[start + 2..end - 1], rest].concat());
    }
    if is(tokens.get(start + 1), &["do", "does"])
        && let Some(at) = (start + 3..end).find(|&at| is(tokens.get(at), &["do"]))
        && is(tokens.get(at + 1), &["in", "on", "for", "with", "at"])
    {
        return Some([&words(&["what-does"])[..], &tokens[start + 2..at], &tokens[at + 1..]].concat());
    }
    let told = start == 1 && is(tokens.get(end - 1), &["does", "do"]) && end > start + 2;
    if told {
        return Some([&words(&["what-does"])[..], &tokens[start + 1..end - 1], rest].concat());
    }
    let purpose = is(tokens.get(1), &["is"])
        && is(tokens.get(2), &["the"])
        && is(tokens.get(3), &["purpose", "function", "role"])
        && is(tokens.get(4), &["of"])
        && start == 0;
    purpose.then(|| [&words(&["what-does"])[..], &tokens[5..]].concat())
}

/// "what does X mean" → "what is the meaning of X".
fn what_it_means(tokens: &[Token]) -> Option<Vec<Token>> {
    let end = sentence(tokens);
    let asks =
        is(tokens.first(), &["what"]) && is(tokens.get(1), &["does", "do"]) && is(tokens.get(end - 1), &["mean"]);
    (asks && end > 3)
        .then(|| [&words(&["what", "is", "the", "meaning", "of"])[..], &tokens[2..end - 1], &tokens[end..]].concat())
}

/// "how much does X cost" → "what is the price of X". The phrase "how much" is read before.
fn what_it_costs(tokens: &[Token]) -> Option<Vec<Token>> {
    let end = sentence(tokens);
    let asks = is(tokens.first(), &["how"]) && is(tokens.get(1), &["amount"]) && is(tokens.get(2), &["does", "do"]);
    (asks && end > 4 && is(tokens.get(end - 1), &["cost"]))
        .then(|| [&words(&["what", "is", "the", "price", "of"])[..], &tokens[3..end - 1], &tokens[end..]].concat())
}

/// "how much is the rent of X", "how high is X's tax" → "what is …". Not "how high is X". The phrases are read before.
fn how_much_it_is(tokens: &[Token]) -> Option<Vec<Token>> {
    let end = sentence(tokens);
    let asks = is(tokens.first(), &["how"])
        && is(tokens.get(1), &["amount", "height"])
        && is(tokens.get(2), &["is", "are", "was", "were"]);
    (asks && tokens[3..end].iter().any(|token| QUANTITIES.contains(&token.word.as_str())))
        .then(|| [&words(&["what"])[..], &tokens[2..]].concat())
}

/// "explain the workings of X" → "explain how X works".
fn workings(tokens: &[Token]) -> Option<Vec<Token>> {
    let asks = is(tokens.first(), &["explain", "describe"]) && is(tokens.get(1), &["the"]);
    let end = sentence(tokens);
    (asks && is(tokens.get(2), &["workings"]) && is(tokens.get(3), &["of"]) && end > 4)
        .then(|| [&words(&["how"])[..], &tokens[4..end], &words(&["work"]), &tokens[end..]].concat())
}

/// "which ocean is the largest on Earth" → "what is the largest ocean on Earth".
fn which_is(tokens: &[Token]) -> Option<Vec<Token>> {
    if !is(tokens.first(), &["which", "what"]) {
        return None;
    }
    let verb = (2..5).find(|&at| is(tokens.get(at), &["is", "are"]))?;
    if !tokens[1..verb].iter().all(|token| means(Some(token))) {
        return None;
    }
    let mut at = verb + 1;
    if is(tokens.get(at), &["the", "a", "an"]) {
        at += 1;
    }
    let of_two = is(tokens.get(at), &["most", "least"]);
    let quality = at + usize::from(of_two);
    // "which city is the capital of …" says what the city is, not what kind of city.
    let ranks = of_two || is_superlative(tokens.get(quality)?);
    if !means(tokens.get(quality)) || !(ranks || at == verb + 1 && is_quality(tokens.get(quality)?)) {
        return None;
    }
    let article = if ranks { &["the"][..] } else { &[] };
    let mut turned = words(&["what"]);
    turned.push(tokens[verb].clone());
    turned.extend(words(article));
    turned.extend(tokens[at..=quality].iter().cloned().map(|token| Token { bound: true, ends: false, ..token }));
    turned.extend_from_slice(&tokens[1..verb]);
    if let Some(last) = turned.last_mut() {
        (last.bound, last.ends) = (tokens[quality].bound, tokens[quality].ends);
    }
    turned.extend_from_slice(&tokens[quality + 1..]);
    Some(turned)
}

/// "which city is the capital of X" → "what is the capital of X".
fn which_is_the(tokens: &[Token]) -> Option<Vec<Token>> {
    let asks = is(tokens.first(), &["which", "what"]) && means(tokens.get(1)) && is(tokens.get(2), &["is"]);
    let tells = is(tokens.get(3), &["the"]) && means(tokens.get(4)) && is(tokens.get(5), &["of"]);
    (asks && tells).then(|| [&words(&["what"])[..], &tokens[2..]].concat())
}

/// "at what temperature does X boil" → "what is the boiling point of X".
fn temperature(tokens: &[Token]) -> Option<Vec<Token>> {
    let asks = is(tokens.first(), &["at"])
        && is(tokens.get(1), &["what", "which"])
        && is(tokens.get(2), &["temperature"])
        && is(tokens.get(3), &["does", "do"]);
    let end = sentence(tokens);
    let verb = (5..end).find(|&at| is(tokens.get(at), &["boil", "melt", "freeze"]))?;
    asks.then(|| {
        let point = format!("{}ing", tokens[verb].word.trim_end_matches('e'));
        let mut turned = words(&["what", "is", "the", &point, "point", "of"]);
        turned.extend_from_slice(&tokens[4..verb]);
        if let Some(last) = turned.last_mut() {
            (last.bound, last.ends) = (tokens[verb].bound, tokens[verb].ends);
        }
        turned.extend_from_slice(&tokens[verb + 1..]);
        turned
    })
}

fn is_superlative(token: &Token) -> bool {
    is_plain(token) && token.word.len() > 4 && token.word.ends_with("est")
        || is(Some(token), &["best", "worst", "most", "least"])
}

fn is_quality(token: &Token) -> bool {
    is(
        Some(token),
        &["good", "bad", "safe", "common", "popular", "important", "useful", "typical", "available", "rich", "free"],
    )
}

/// "which git command lists X", "what is the command to list X in git", "what X do I need to …" → "how list X in git".
fn by_what_means(tokens: &[Token]) -> Option<Vec<Token>> {
    const MEANS: [&str; 7] = ["command", "commands", "statement", "syntax", "flag", "keyword", "option"];
    if !is(tokens.first(), &["which", "what"]) {
        return None;
    }
    let mut start = 1;
    if is(tokens.get(start), &["is"]) {
        start += 1 + usize::from(is(tokens.get(start + 1), &["the", "a"]));
    }
    let asked = |at: usize| {
        is(tokens.get(at), &["do", "should", "can"])
            && is(tokens.get(at + 1), &["i", "you", "we"])
            && is(tokens.get(at + 2), &["use", "need", "must"])
    };
    let by_name = (start..start + 3).find(|&at| is(tokens.get(at), &MEANS[..]));
    let (frame, mut verb) = match by_name {
        Some(at) => (start..at, at + 1),
        None => {
            let at = (start + 1..start + 3).find(|&at| asked(at))?;
            (start..at, at)
        }
    };
    if asked(verb) {
        verb += 3;
        if !is(tokens.get(verb), &["to"]) && !is(tokens.get(verb - 1), &["must"]) {
            return None;
        }
    }
    let for_doing =
        is(tokens.get(verb), &["for"]) && tokens.get(verb + 1).is_some_and(|next| next.word.ends_with("ing"));
    if is(tokens.get(verb), &["to", "that", "which"]) || for_doing {
        verb += 1;
    } else if by_name.is_none() && !is(tokens.get(verb - 1), &["must"]) {
        return None;
    }
    if !means(tokens.get(verb)) || !tokens[frame.clone()].iter().all(|token| means(Some(token))) {
        return None;
    }
    let end = verb + sentence(&tokens[verb..]);
    let mut turned = words(&["how"]);
    turned.extend(tokens[verb..end].iter().cloned().map(|token| Token { ends: false, ..token }));
    if let Some(last) = turned.last_mut() {
        last.bound = true;
    }
    if !frame.is_empty() {
        turned.extend(words(&["in"]));
        turned.extend_from_slice(&tokens[frame]);
    }
    if let Some(last) = turned.last_mut() {
        (last.bound, last.ends) = (false, true);
    }
    turned.extend_from_slice(&tokens[end..]);
    Some(turned)
}

/// "how do I use X to do Y" → "how do I do Y with X".
fn used_for(tokens: &[Token]) -> Option<Vec<Token>> {
    if !is(tokens.first(), &["how"]) {
        return None;
    }
    let at = (1..4).find(|&at| is(tokens.get(at), &["use"]))?;
    if !tokens[1..at].iter().all(|token| !means(Some(token))) {
        return None;
    }
    let end = sentence(tokens);
    let to = (at + 2..end.min(at + 6)).find(|&to| is(tokens.get(to), &["to"]))?;
    if to + 1 >= end {
        return None;
    }
    let mut turned = tokens[..at].to_vec();
    turned.extend(tokens[to + 1..end].iter().cloned().map(|token| Token { bound: true, ends: false, ..token }));
    turned.extend(words(&["with"]));
    turned.extend_from_slice(&tokens[at + 1..to]);
    if let Some(last) = turned.last_mut() {
        (last.bound, last.ends) = (false, true);
    }
    turned.extend_from_slice(&tokens[end..]);
    Some(turned)
}

/// "how can X be done", "how is X done" → "how do X".
fn passive(tokens: &[Token]) -> Option<Vec<Token>> {
    if !is(tokens.first(), &["how"]) {
        return None;
    }
    let end = sentence(tokens);
    let (from, verb, skipped) = if is(tokens.get(1), &["can", "could", "should", "may", "do", "does"]) {
        let be = (3..end).find(|&at| is(tokens.get(at), &["be"]))?;
        (2, be + 1, 1)
    } else if is(tokens.get(1), &["is", "are"]) {
        let verb = (3..end).find(|&at| is_participle(&tokens[at]))?;
        (2, verb, 0)
    } else {
        // "(show me) how X is done".
        let be = (2..end.min(7)).find(|&at| is(tokens.get(at), &["is", "are"]))?;
        if !is_participle(tokens.get(be + 1)?)
            || !tokens[1..be].iter().all(|token| means(Some(token)) || is(Some(token), &["a", "the"]))
        {
            return None;
        }
        (1, be + 1, 1)
    };
    // Whoever does it would be lost.
    if verb >= end || !means(tokens.get(verb)) || is(tokens.get(verb + 1), &["by"]) {
        return None;
    }
    let mut turned = words(&["how"]);
    turned.push(Token { bound: true, ends: false, active: true, ..tokens[verb].clone() });
    turned.extend_from_slice(&tokens[from..verb - skipped]);
    if let Some(last) = turned.last_mut() {
        (last.bound, last.ends) = (tokens[verb].bound, tokens[verb].ends);
    }
    turned.extend_from_slice(&tokens[verb + 1..]);
    Some(turned)
}

fn is_participle(token: &Token) -> bool {
    let word = token.word.as_str();
    is_plain(token)
        && (word.len() > 3 && word.ends_with("ed") && !word.ends_with("eed")
            || IRREGULAR.iter().any(|(form, _)| *form == word))
}

/// "how do A and B differ", "how does A differ from B" → "what is the difference between A and B".
fn difference(tokens: &[Token]) -> Option<Vec<Token>> {
    if !is(tokens.first(), &["how"]) || !is(tokens.get(1), &["do", "does"]) {
        return None;
    }
    let at = tokens.iter().position(|token| is(Some(token), &["differ"]))?;
    let mut turned = words(&["what", "is", "the", "difference", "between"]);
    turned.extend_from_slice(&tokens[2..at]);
    let from = at + 1;
    if is(tokens.get(from), &["from"]) {
        turned.extend(words(&["and"]));
        turned.extend_from_slice(&tokens[from + 1..]);
    } else {
        if let Some(last) = turned.last_mut() {
            (last.bound, last.ends) = (tokens[at].bound, tokens[at].ends);
        }
        turned.extend_from_slice(&tokens[from..]);
    }
    Some(turned)
}
