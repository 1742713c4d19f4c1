// What the page says, in English and Chinese, and the language it starts in.
const WORDS = {
  en: {
    other: "中文", model: "Model", skip: "Skip to the text", docs: "API", foot: "for programs: POST the same texts to /v1/predict",
    go: "Read", stop: "Stop", hint: "Ctrl + Enter", working: "Reading…", loading: "Asking which models are loaded…",
    text: "Text", text_a: "First text", text_b: "Second text", second: "Second text (optional)",
    question: "Question", context: "Context", choices: "Options, one a line", predicate: "Whose arguments? Choose the predicate",
    lines: "Texts, one a line", source: "Source", masked: "Text with [MASK]",
    kept: n => `${n} token${n === 1 ? "" : "s"} read`, strided: n => `${n} read again in a further window`,
    dropped: n => `${n} not read: the text is longer than the model`, unfinished: "The text was cut here, at its greatest length.", ms: n => `${n} ms`,
    empty: "There is no text yet.", two: "At least two texts are needed, one a line.", many: n => `At most ${n} texts can be compared here.`,
    none: "Nothing was found in this text.", no_answer: "No answer in this context", answer_score: s => `score ${s}`,
    value: "Similarity", chosen: "The option that fits", fillings: (n, of) => of > 1 ? `Mask ${n} of ${of}` : "What fits the mask",
    intent: "Intent", heat: "How alike each two texts are", not_reached: "The server can't be reached.",
    found: { sentiment: "Sentiment", topic: "Topic" }, labels: "Labels", number: "Value", next: "Other answers",
    task: {
      classify: "Label", pair: "Pair", similarity: "Similarity", tag: "Entities", segment: "Words", roles: "Roles", slots: "Intent and slots",
      qa: "Question", choice: "Choice", analyze: "Analyse", multi: "All tasks", fill: "Fill in", generate: "Write", embed: "Vector", compare: "Compare", attention: "Attention",
    },
    heads: "Every head: a row for each layer. Choose one.", layer: "layer", head: "head", head_name: (l, h) => `Layer ${l}, head ${h}`,
    looks: "what a token looks at", seen: "what looks at it", trace: "Point at the picture, or at a token; arrow keys move.",
    pair_said: (a, b, w) => `${a} looks at ${b}: ${w}`, matrix: "Weights of this head; rows look at columns",
    unread: n => `${n} tokens at the end were not read.`, tokens: "Tokens",
    encoder: "within the source", cross: "from the written text to the source", kind: "Which attention",
    request: "Request", answer: "Answer", optional: "optional", try: "Try it",
  },
  zh: {
    other: "English", model: "模型", skip: "跳到正文", docs: "接口", foot: "程序可以把同样的文本 POST 到 /v1/predict",
    go: "分析", stop: "停止", hint: "Ctrl + Enter", working: "正在处理……", loading: "正在询问加载了哪些模型……",
    text: "文本", text_a: "第一段文本", text_b: "第二段文本", second: "第二段文本（可选）",
    question: "问题", context: "上下文", choices: "选项，每行一个", predicate: "谁的论元？选择谓词",
    lines: "文本，每行一条", source: "原文", masked: "含 [MASK] 的文本",
    kept: n => `读了 ${n} 个词元`, strided: n => `${n} 个在下一窗口中重读`,
    dropped: n => `${n} 个没有读到：文本比模型的长度长`, unfinished: "已达到最大长度，文本在此截断。", ms: n => `${n} 毫秒`,
    empty: "还没有文本。", two: "至少需要两条文本，每行一条。", many: n => `这里最多比较 ${n} 条文本。`,
    none: "这段文本里没有找到。", no_answer: "上下文里没有答案", answer_score: s => `得分 ${s}`,
    value: "相似度", chosen: "合适的选项", fillings: (n, of) => of > 1 ? `第 ${n} 个空（共 ${of} 个）` : "适合填入的词",
    intent: "意图", heat: "每两条文本有多相似", not_reached: "连不上服务器。",
    found: { sentiment: "情感", topic: "主题" }, labels: "标签", number: "数值", next: "其他候选",
    task: {
      classify: "分类", pair: "句对", similarity: "相似度", tag: "实体", segment: "分词", roles: "语义角色", slots: "意图与槽位",
      qa: "问答", choice: "选择", analyze: "分析", multi: "所有任务", fill: "填空", generate: "生成", embed: "向量", compare: "比较", attention: "注意力",
    },
    heads: "所有的头，每层一行。选择一个。", layer: "层", head: "头", head_name: (l, h) => `第 ${l} 层，第 ${h} 个头`,
    looks: "词元关注哪里", seen: "哪些词元关注它", trace: "指向图或词元；方向键可以移动。",
    pair_said: (a, b, w) => `${a} 看向 ${b}：${w}`, matrix: "这个头的权重；行看向列",
    unread: n => `末尾有 ${n} 个词元没有读到。`, tokens: "词元",
    encoder: "原文内部", cross: "写出的文本看原文", kind: "哪一种注意力",
    request: "请求", answer: "回答", optional: "可省", try: "试一试",
  },
};

const EXAMPLES = {
  tag: [["Ada Lovelace wrote to Charles Babbage in London."], ["Marie Curie worked in Paris."]],
  segment: [["我们明天去北京看电影。"], ["他喜欢吃苹果。"]],
  classify: [["The film was warm, funny and far too short."], ["等了一个小时，菜还是凉的。"]],
  pair: [["A plane is taking off.", "An aircraft leaves the ground."], ["他在睡觉。", "他醒着。"]],
  similarity: [["A man plays the flute.", "A man is playing a flute."], ["一架飞机正在起飞。", "飞机起飞了。"]],
  slots: [["play Westbam on Spotify"], ["rain in Paris tomorrow"]],
  roles: [["Ada wrote the first program"], ["He sleeps"]],
  qa: [["When was it built?", "The bridge was built in 1932 by two brothers."], ["谁写了它？", "这部小说是鲁迅在一九二一年写的。"]],
  choice: [["下雨了，他要出门。", "他拿了什么？", "一把伞\n一本书\n一碗"], ["It is dark.", "What does she light?", "a stone\na lamp"]],
  fill: [["The capital of France is [MASK]."], ["今天天气很[MASK]。"]],
  generate: [["今天天气很好。"], ["The bridge was built in 1932."]],
  analyze: [["小明去年在北京大学学习，他说：“I love New York in the autumn.”"], ["Ada Lovelace didn't live in Paris."]],
  multi: [["Ada Lovelace wrote to Charles Babbage in London."], ["我们明天去北京看电影。"]],
  embed: [["Ada wrote the first program."], ["今天天气很好。"]],
  compare: [["A man plays the flute.\nA man is playing a flute.\nA woman cuts an onion.\n一架飞机正在起飞。\n飞机起飞了。"]],
  attention: [["The film was warm, funny and far too short.", ""], ["他在睡觉。", "他醒着。"]],
};

function savedLanguage() {
  try { return localStorage.getItem("language"); } catch { return null; }
}

const say = {
  language: savedLanguage() ?? ((navigator.language || "en").toLowerCase().startsWith("zh") ? "zh" : "en"),
  get words() { return WORDS[this.language]; },
  change() {
    this.language = this.language === "zh" ? "en" : "zh";
    try { localStorage.setItem("language", this.language); } catch { /* a page from a file may not */ }
  },
};

// An element, its attributes (on… are listeners) and what is in it; texts are only ever texts.
function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter(child => child != null));
  return element;
}
