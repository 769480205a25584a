"""Made-up messages in several languages. The last one of each language is a threat or an insult.

`{n}` is a number that is different in each event, so that no text repeats and each one is judged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

TEXTS: Mapping[str, Sequence[str]] = {
    "ar": (
        "نلتقي عند البوابة {n} بعد العمل",
        "رقم طلبي {n} ولم يصل بعد",
        "كانت الحلقة {n} أجمل من كل ما قبلها",
        "سأجدك وأقتلك، تذكر الرقم {n}",
    ),
    "de": (
        "Wir treffen uns um acht am Gleis {n}",
        "Meine Bestellung {n} ist noch nicht angekommen",
        "Folge {n} war die beste der ganzen Staffel",
        "Ich finde dich und bringe dich um, merk dir die {n}",
    ),
    "en": (
        "See you at gate {n} after work",
        "My order {n} has not arrived yet, can somebody look?",
        "Episode {n} was better than all the others",
        "Level {n} took me the whole evening, great game",
        "I will find you and kill you, remember the number {n}",
    ),
    "es": (
        "Nos vemos en la puerta {n} después del trabajo",
        "Mi pedido {n} todavía no ha llegado",
        "El capítulo {n} fue el mejor de todos",
        "Te voy a encontrar y te voy a matar, recuerda el {n}",
    ),
    "fr": (
        "On se retrouve au quai {n} après le travail",
        "Ma commande {n} n'est pas encore arrivée",
        "L'épisode {n} était le meilleur de la saison",
        "Je vais te retrouver et te tuer, retiens le {n}",
    ),
    "hi": (
        "काम के बाद गेट {n} पर मिलते हैं",
        "मेरा ऑर्डर {n} अभी तक नहीं आया",
        "एपिसोड {n} सबसे अच्छा था",
        "मैं तुम्हें ढूँढकर मार डालूँगा, {n} याद रखना",
    ),
    "ja": (
        "仕事のあと、{n}番ゲートで会いましょう",
        "注文番号{n}がまだ届いていません",
        "第{n}話が一番よかった",
        "お前を見つけて殺してやる、{n}を覚えておけ",
    ),
    "pt": (
        "Encontramo-nos no portão {n} depois do trabalho",
        "O meu pedido {n} ainda não chegou",
        "O episódio {n} foi o melhor de todos",
        "Vou encontrar-te e matar-te, lembra-te do {n}",
    ),
    "ru": (
        "Встретимся у ворот {n} после работы",
        "Мой заказ {n} ещё не пришёл",
        "Серия {n} была лучшей в сезоне",
        "Я найду тебя и убью, запомни число {n}",
    ),
    "sw": (
        "Tukutane lango la {n} baada ya kazi",
        "Agizo langu {n} bado halijafika",
        "Kipindi cha {n} kilikuwa bora kuliko vyote",
        "Nitakutafuta na kukuua, kumbuka nambari {n}",
    ),
    "tr": (
        "İşten sonra {n} numaralı kapıda buluşalım",
        "{n} numaralı siparişim hâlâ gelmedi",
        "{n}. bölüm hepsinden güzeldi",
        "Seni bulup öldüreceğim, {n} sayısını unutma",
    ),
    "zh": (
        "下班后在{n}号门见",
        "我的订单{n}还没有到",
        "第{n}集是最好看的一集",
        "我会找到你并杀了你，记住{n}",
    ),
}
