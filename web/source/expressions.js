// The sliders in groups, as a person would name them, and a few expressions.

const GROUPS = [
  ['Mouth', ['mouth', 'tongue']],
  ['Jaw', ['jaw']],
  ['Cheeks and nose', ['cheek', 'nose']],
  ['Brows', ['brow']],
  ['Gaze', ['eyeLook']],
  ['Eyelids', ['eye']],
  ['More', ['']],
];

// [group, slider names], in the order of GROUPS.
export function grouped(names) {
  const left = new Set(names);
  return GROUPS.map(([title, prefixes]) => {
    const members = [...left].filter((name) => prefixes.some((prefix) => name.startsWith(prefix)));
    members.forEach((name) => left.delete(name));
    return [title, members];
  }).filter(([, members]) => members.length);
}

// mouthSmileLeft -> Smile left
export function label(name) {
  const words = name.replace(/^(mouth|jaw|cheek|nose|brow|eyeLook|eye)(?=[A-Z])/, '').replace(/([a-z])([A-Z])/g, '$1 $2');
  return words.charAt(0).toUpperCase() + words.slice(1).toLowerCase();
}

const both = (name, left, right = left) => ({ [`${name}Left`]: left, [`${name}Right`]: right });

export const EXPRESSIONS = {
  Neutral: {},
  Smile: { ...both('mouthSmile', 0.7, 0.65), ...both('mouthDimple', 0.1), ...both('cheekSquint', 0.35), ...both('eyeSquint', 0.25) },
  Laugh: {
    ...both('mouthSmile', 0.9), jawOpen: 0.4, ...both('mouthUpperUp', 0.4), ...both('cheekSquint', 0.7), ...both('eyeSquint', 0.55),
    browInnerUp: 0.15,
  },
  Surprised: { browInnerUp: 0.8, ...both('browOuterUp', 0.8), ...both('eyeWide', 0.8), jawOpen: 0.45, mouthFunnel: 0.15 },
  Sad: { browInnerUp: 0.95, ...both('mouthFrown', 0.75), mouthShrugLower: 0.4, ...both('eyeBlink', 0.12), ...both('eyeLookDown', 0.3) },
  Angry: { ...both('browDown', 0.9), ...both('eyeSquint', 0.35), ...both('mouthPress', 0.55), ...both('noseSneer', 0.35) },
  Kiss: { mouthPucker: 0.95, mouthFunnel: 0.2, ...both('eyeBlink', 0.25) },
  Wink: { ...both('eyeBlink', 1, 0.05), ...both('cheekSquint', 0.6, 0.1), ...both('mouthSmile', 0.6, 0.3) },
};
