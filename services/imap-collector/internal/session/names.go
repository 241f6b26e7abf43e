package session

// knownNames is what providers and mail programs call folders whose special use they do not tell, in the languages that they speak. The first that a
// mailbox has is taken.
var knownNames = map[string][]string{
	`\junk`: {
		"Junk", "Spam", "Junk E-mail", "Junk Email", "Junk Mail", "Junkmail", "Bulk Mail", "Bulk", "Bulk E-mail", "[Gmail]/Spam",
		"Junk-E-Mail", "Junk-E-Mails", "Spamverdacht", "Spam-Verdacht", "Unerwünscht", "Unerwünschte Werbung", // German
		"Courrier indésirable", "Indésirables", "Pourriel", // French
		"Correo no deseado", "Correo basura", "No deseado", // Spanish
		"Correu brossa",                      // Catalan
		"Posta indesiderata", "Indesiderata", // Italian
		"Lixo eletrônico", "Lixo Eletrónico", "Lixo", "Lixo-E-mail", // Portuguese
		"Ongewenste e-mail", "Ongewenst", "Ongewenste reclame", // Dutch
		"Skräppost",                               // Swedish
		"Søppelpost", "Uønsket e-post", "Uønsket", // Norwegian
		"Uønsket e-mail", "Uønsket mail", // Danish
		"Roskaposti",                                           // Finnish
		"Wiadomości-śmieci", "Wiadomości śmieci", "Niechciane", // Polish
		"Nevyžádaná pošta", "Nevyžádané", // Czech, Slovak
		"Levélszemét",                                            // Hungarian
		"Mesaje nedorite", "E-mail nedorit", "Mesaje indezirate", // Romanian
		"Neželjena pošta", "Neželena pošta", "Nezaželena pošta", // Croatian, Serbian, Slovene
		"Önemsiz E-posta", "Önemsiz", "Gereksiz", "İstenmeyen", // Turkish
		"Ανεπιθύμητα", "Ανεπιθύμητη αλληλογραφία", // Greek
		"Спам", "Нежелательная почта", "Нежелательные письма", // Russian
		"Небажана пошта", "Небажані", "Нежелана поща", // Ukrainian, Bulgarian
		"迷惑メール", "迷惑メールフォルダ", // Japanese
		"垃圾邮件", "垃圾郵件", "广告邮件", // Chinese
		"스팸", "스팸메일함", "스팸함", "정크 메일", // Korean
		"דואר זבל", "البريد غير الهام", "بريد عشوائي", "Thư rác", "อีเมลขยะ", "จดหมายขยะ", "स्पैम",
	},
	`\all`: {
		"All Mail", "All", "Alle Nachrichten", "Tous les messages", "Todos", "Todos los mensajes", "Tutti i messaggi", "Todos os e-mails",
		"Todo o correio", "Alle berichten", "Alla mail", "All e-post", "Alle mails", "Kaikki viestit", "Wszystkie", "Všechny zprávy", "Összes levél",
		"Toate mesajele", "Tüm Postalar", "Όλα τα μηνύματα", "Вся почта", "Уся пошта", "すべてのメール", "所有邮件", "所有郵件", "전체보관함",
	},
	`\trash`: {
		"Trash", "Deleted Items", "Deleted Messages", "Deleted", "Bin", "Papierkorb", "Gelöschte Elemente", "Gelöschte Objekte", "Gelöscht", "Corbeille",
		"Éléments supprimés", "Messages supprimés", "Papelera", "Elementos eliminados", "Cestino", "Posta eliminata", "Lixeira", "Itens Excluídos",
		"Itens Eliminados", "Prullenbak", "Verwijderde items", "Papperskorgen", "Borttaget", "Papirkurv", "Slettet post", "Slettede elementer", "Roskakori",
		"Poistetut", "Kosz", "Elementy usunięte", "Koš", "Odstraněná pošta", "Kuka", "Törölt elemek", "Coș de gunoi", "Elemente șterse", "Çöp Kutusu",
		"Silinmiş Öğeler", "Κάδος απορριμμάτων", "Διαγραμμένα", "Корзина", "Удаленные", "Кошик", "ゴミ箱", "削除済みアイテム", "已删除邮件", "已删除", "垃圾桶",
		"刪除的郵件", "휴지통",
	},
	`\archive`: {"Archive", "Archives", "Archiv", "Archivo", "Archivio", "Arquivo", "Archief", "Arkiv", "Архив", "アーカイブ", "归档"},
	`\sent`: {
		"Sent", "Sent Items", "Sent Messages", "Sent Mail", "Gesendet", "Gesendete Elemente", "Gesendete Objekte", "Messages envoyés", "Éléments envoyés",
		"Enviados", "Elementos enviados", "Posta inviata", "Inviata", "Itens Enviados", "Verzonden", "Verzonden items", "Skickat", "Sendt", "Lähetetyt",
		"Wysłane", "Odeslaná pošta", "Elküldött", "Trimise", "Gönderilmiş Öğeler", "Отправленные", "送信済み", "已发送", "보낸편지함",
	},
	`\drafts`: {"Drafts", "Draft", "Entwürfe", "Brouillons", "Borradores", "Bozze", "Rascunhos", "Concepten", "Utkast", "Kladder", "Luonnokset", "Черновики", "下書き", "草稿"},
}
