"""Sources of our own to show what a model writes: the sets' texts are their authors', and stay out of the project."""

from __future__ import annotations

Pair = tuple[str, str]  # a source, and what one of us would have written for it

_SENTENCES = (
    ("It will rain tomorrow, so take an umbrella.", "明天会下雨，带上伞。"),
    ("My sister has been learning the piano for three years.", "我妹妹学钢琴已经三年了。"),
    ("Where can I buy a ticket to Shanghai?", "我在哪里可以买到去上海的票？"),
    ("If I had known, I would not have said that.", "要是早知道，我就不会那么说了。"),
    ("The old bridge was closed after the flood.", "洪水之后，那座老桥被封闭了。"),
)
_TALKS = (
    ("Ten years ago I began to ask one simple question.", "十年前，我开始问一个简单的问题。"),
    ("We thought that the answer was money, and we were wrong.", "我们以为答案是钱，但我们错了。"),
    ("Imagine a city in which nobody needs a car.", "想象一座没有人需要汽车的城市。"),
    ("So what did these children teach us?", "那么这些孩子教会了我们什么？"),
    ("I want to tell you about a machine that my team has built.", "我想向大家介绍我们团队制造的一台机器。"),
)
_TECHNICAL = (
    ("The pump stops when the pressure exceeds the limit.", "当压力超过限值时，泵停止工作。"),
    ("This method reduces the cost of storing data.", "该方法降低了存储数据的成本。"),
    ("The temperature of the sensor was measured every minute.", "每分钟测量一次传感器的温度。"),
    ("Results show that the new alloy is twice as strong.", "结果表明，新合金的强度是原来的两倍。"),
    ("Connect the cable before you turn on the power.", "接通电源之前，请先连接电缆。"),
)
_CLASSICAL = (
    ("予尝夜登西山，见月出于东。", "我曾经在夜里登上西山，看见月亮从东边升起。"),
    ("其人好书，家贫无以得之。", "那个人喜爱书，但家里贫穷，没有办法得到书。"),
    ("王怒，使人召之，三召而不至。", "大王发怒，派人召见他，召了三次他都没有来。"),
    ("汝何故不早言？", "你为什么不早说？"),
    ("是岁大旱，民多饥者。", "这一年大旱，百姓有很多挨饿的。"),
)
_NEWS_ZH = (
    ("市气象台今天上午发布消息，受冷空气影响，本市明天将有大到暴雨，部分路段可能积水，提醒市民减少外出。",
     "本市明天将有大到暴雨"),
    ("记者从教育局获悉，今年全市新建小学十二所，新增学位一万五千个，九月一日起全部投入使用。",
     "全市新建小学十二所 新增学位一万五千个"),
    ("昨天下午，一列货运列车在山区脱轨，没有人员伤亡。铁路部门连夜抢修，今天早上六点恢复通车。",
     "货运列车山区脱轨 今晨恢复通车"),
    ("一项对两千名上班族的调查显示，超过六成的人每天睡眠不足七小时，工作压力大是主要原因。",
     "调查：六成上班族睡眠不足七小时"),
    ("我国科研人员培育出一种耐盐碱的水稻新品种，在沿海滩涂试种亩产超过六百公斤。",
     "我国育成耐盐碱水稻新品种"),
)  # fmt: skip
_NEWS_EN = (
    ("Trains between the two cities were stopped for six hours on Monday after heavy snow brought down a power line. "
     "Nobody was hurt, and engineers hope to restore the full service tonight.",
     "Heavy snow stops trains for six hours"),
    ("A small software company in Leeds is to hire two hundred people after winning a contract to build a booking "
     "system for hospitals. The work will begin in March.",
     "Leeds software firm to hire 200"),
    ("The captain scored twice in the last ten minutes as the home side came from behind to reach the final. "
     "They will play the champions on Saturday.",
     "Late goals send home side to final"),
    ("The chancellor said that taxes on fuel would not rise this year, because prices in the shops are still growing "
     "faster than wages.",
     "Chancellor rules out fuel tax rise"),
    ("The director's second film, a comedy about a lighthouse keeper, took three prizes at the festival, among them "
     "the one for the best actress.",
     "Lighthouse comedy wins three festival prizes"),
)  # fmt: skip
_TALK = (
    ("你喜欢看电影吗？", "喜欢，我最爱看科幻片。"),
    ("你知道长城在哪里吗？", "知道，长城在中国北方，从东到西有上万里。"),
    ("最近有什么好听的歌推荐？", "你可以听听周杰伦的歌。"),
    ("这部电影是谁导演的？", "是张艺谋导演的。"),
    ("去北京旅游应该去哪些地方？", "可以去故宫、长城和颐和园。"),
)
_QUESTIONS = (
    ("这座桥是哪一年建成的？ 老石桥位于城南，全长八十米，一九三二年建成，是当地最早的公路桥。", "一九三二年"),
    ("谁设计了新图书馆？ 新图书馆由建筑师林海设计，去年秋天对读者开放，藏书六十万册。", "建筑师林海"),
    ("这种鸟在哪里过冬？ 这种候鸟夏天在东北的湿地繁殖，十月起飞往长江中下游的湖泊过冬。", "长江中下游的湖泊"),
    ("工厂有多少名工人？ 该厂成立于一九五八年，现有工人三千二百名，主要生产农业机械。", "三千二百名"),
    ("比赛为什么推迟？ 原定周六举行的马拉松因台风临近推迟一周，报名费不退。", "因台风临近"),
)


def _back(pairs: tuple[Pair, ...]) -> tuple[Pair, ...]:
    return tuple((theirs, ours) for ours, theirs in pairs)


SAMPLES: dict[str, tuple[Pair, ...]] = {
    "tatoeba_en_zh": _SENTENCES,
    "tatoeba_zh_en": _back(_SENTENCES),
    "ted_en_zh": _TALKS,
    "ted_zh_en": _back(_TALKS),
    "tech_en_zh": _TECHNICAL,
    "tech_zh_en": _back(_TECHNICAL),
    "classical_to_modern": _CLASSICAL,
    "xwlb_headline": _NEWS_ZH,
    "lcsts_human": _NEWS_ZH,
    "bbc_headlines": _NEWS_EN,
    "kdconv": _TALK,
    "cmrc2018": _QUESTIONS,
}
"""Five for each set, by its name; their likes stand in none of the sets on purpose."""
